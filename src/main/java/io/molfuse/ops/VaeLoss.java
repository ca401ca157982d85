// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static io.molfuse.ops.Checks.floating;

import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch.ScalarType;

/**
 * The masked loss of a variational autoencoder over token sequences, after Kingma &amp; Welling 2014.
 *
 * <pre>
 *   nll[b,t] = -log softmax(logits[b,t,:])[targets[b,t]]          mask = targets != pad_index
 *   recon    = sum(mask * nll) / (sum(mask) + 1e-8)
 *   kl       = mean over B*L of -1/2 (1 + lv - mean^2 - exp(lv)),  lv = clamp(log_var, -20, 10)
 *   total    = recon + beta * kl;    perplexity = exp(recon)
 *   correct  = count of masked positions whose argmax is the target (a tie goes to the lowest class)
 * </pre>
 *
 * In nats. The gradient through the clamp is 0 outside -20..10. A batch of nothing but padding gives recon = 0 and zero
 * gradients. T is float16, bfloat16, float32 or float64; S is float64 if T is float64, else float32. NaN in the logits gives a NaN loss.
 * Logits (hidden, weight, weight bias), mean and log_var are differentiable, once.
 *
 * <p>Every result is a new tensor that belongs to the caller's innermost {@link PointerScope}. Wrong arguments, a target
 * outside 0..K-1 that is not the padding index among them, are {@link IllegalArgumentException}s; other failures are
 * {@link MolfuseException}s.
 */
public final class VaeLoss {
  private VaeLoss() {}

  /** How the terms are joined. */
  public enum Reduction {
    /** As in the formula. */
    MEAN("mean"),
    /** recon is the sum of nll over masked positions, kl the sum over B*L. */
    SUM("sum"),
    /** nll per token and kl per sample (the sum over L); no total. */
    NONE("none");

    final String word;

    Reduction(String word) {
      this.word = word;
    }
  }

  /** The loss's parameters. */
  public static final class Options {
    double beta = 1.0;
    long padIndex;
    Reduction reduction = Reduction.MEAN;
    boolean classSecond;
    boolean inPlaceBackward;

    private Options() {}

    /**
     * @param beta weight of kl; 1 unless set
     * @return this
     */
    public Options beta(double beta) {
      this.beta = Checks.finite("beta", beta);
      return this;
    }

    /**
     * @param padIndex the target of padding; it may lie outside 0..K-1; 0 unless set
     * @return this
     */
    public Options padIndex(long padIndex) {
      this.padIndex = padIndex;
      return this;
    }

    /**
     * @param reduction {@link Reduction#MEAN} unless set
     * @return this
     */
    public Options reduction(Reduction reduction) {
      this.reduction = Checks.notNull("reduction", reduction);
      return this;
    }

    /**
     * @param classSecond whether logits are [B,K,T], which is read in place; not for {@link VaeLoss#linear}
     * @return this
     */
    public Options classSecond(boolean classSecond) {
      this.classSecond = classSecond;
      return this;
    }

    /**
     * @param inPlaceBackward whether backward may write the gradient of the logits into their own memory. The logits must then
     *     not be a leaf, and their values are gone after backward. Not for {@link VaeLoss#linear}, which has no logits.
     * @return this
     */
    public Options inPlaceBackward(boolean inPlaceBackward) {
      this.inPlaceBackward = inPlaceBackward;
      return this;
    }
  }

  /** The tensors of one loss. */
  public static final class Result implements AutoCloseable {
    private final Reduction reduction;
    private final Tensor[] parts;

    Result(Reduction reduction, Tensor[] parts) {
      this.reduction = reduction;
      this.parts = parts;
    }

    /** @return S []: recon + beta * kl; not for {@link Reduction#NONE} */
    public Tensor total() {
      return reduced("total", 0);
    }

    /** @return S []; not for {@link Reduction#NONE} */
    public Tensor recon() {
      return reduced("recon", 1);
    }

    /** @return S []; not for {@link Reduction#NONE} */
    public Tensor kl() {
      return reduced("kl", 2);
    }

    /** @return S []: exp(recon); not for {@link Reduction#NONE} */
    public Tensor perplexity() {
      return reduced("perplexity", 3);
    }

    /** @return S []: the number of positions that are not padding; no gradient */
    public Tensor tokenCount() {
      return parts[reduction == Reduction.NONE ? 2 : 4];
    }

    /** @return S []: the number of those positions whose argmax is the target; no gradient */
    public Tensor correct() {
      return parts[reduction == Reduction.NONE ? 3 : 5];
    }

    /** @return S [B,T], 0 at padding; for {@link Reduction#NONE} only */
    public Tensor nll() {
      return unreduced("nll", 0);
    }

    /** @return S [B]; for {@link Reduction#NONE} only */
    public Tensor klPerSample() {
      return unreduced("klPerSample", 1);
    }

    private Tensor reduced(String name, int at) {
      if (reduction == Reduction.NONE) {
        throw new IllegalStateException(name + " does not exist with Reduction.NONE; use nll and klPerSample");
      }
      return parts[at];
    }

    private Tensor unreduced(String name, int at) {
      if (reduction != Reduction.NONE) {
        throw new IllegalStateException(name + " exists only with Reduction.NONE, but the reduction is " + reduction);
      }
      return parts[at];
    }

    /** Releases the tensors before their scope does. */
    @Override
    public void close() {
      Native.close(parts);
    }
  }

  /** @return beta 1, padding index 0, mean reduction, logits [B,T,K] */
  public static Options options() {
    return new Options();
  }

  /**
   * The loss of logits.
   *
   * @param logits T [B,T,K], or [B,K,T] with {@link Options#classSecond}
   * @param targets int64 [B,T], each 0..K-1 or the padding index
   * @param mean T or S [B,L], or null together with {@code logVar}: then kl is 0
   * @param logVar like {@code mean}: the logarithm of the variance
   * @param options the loss's parameters
   * @return the loss and what is logged with it
   */
  public static Result apply(Tensor logits, Tensor targets, Tensor mean, Tensor logVar, Options options) {
    Checks.notNull("options", options);
    floating("logits", logits, options.classSecond ? "[B,K,T]" : "[B,T,K]", 3);
    checkCommon(targets, mean, logVar);
    return new Result(
        options.reduction,
        Unfused.on()
            ? Unfused.vaeLoss(logits, targets, mean, logVar, options)
            : Native.vaeLoss(logits, targets, mean, logVar, options));
  }

  /**
   * The loss of logits = hidden . weight^T + weightBias, which exist only as tiles in cache.
   *
   * @param hidden T [B,T,C]
   * @param weight T [K,C]
   * @param weightBias T [K], or null
   * @param targets int64 [B,T], each 0..K-1 or the padding index
   * @param mean T or S [B,L], or null together with {@code logVar}: then kl is 0
   * @param logVar like {@code mean}: the logarithm of the variance
   * @param options the loss's parameters
   * @return the loss and what is logged with it
   */
  public static Result linear(
      Tensor hidden,
      Tensor weight,
      Tensor weightBias,
      Tensor targets,
      Tensor mean,
      Tensor logVar,
      Options options) {
    Checks.notNull("options", options);
    floating("hidden", hidden, "[B,T,C]", 3);
    floating("weight", weight, "[K,C]", 2);
    if (weightBias != null) {
      floating("weight_bias", weightBias, "[K]", 1);
    }
    checkCommon(targets, mean, logVar);
    if (options.classSecond || options.inPlaceBackward) {
      throw new IllegalArgumentException(
          (options.classSecond ? "classSecond" : "inPlaceBackward")
              + ": expected false for the linear form, which stores no logits, got true");
    }
    return new Result(
        options.reduction,
        Unfused.on()
            ? Unfused.linearVaeLoss(hidden, weight, weightBias, targets, mean, logVar, options)
            : Native.linearVaeLoss(hidden, weight, weightBias, targets, mean, logVar, options));
  }

  private static void checkCommon(Tensor targets, Tensor mean, Tensor logVar) {
    Checks.index("targets", targets, "[B,T]", 2);
    if (Checks.type(targets) != ScalarType.Long) {
      throw new IllegalArgumentException("targets: expected int64 [B,T], got " + Checks.describe(targets));
    }
    Checks.together("mean", mean, "log_var", logVar);
    if (mean != null) {
      floating("mean", mean, "[B,L]", 2);
      floating("log_var", logVar, "[B,L]", 2);
    }
  }
}
