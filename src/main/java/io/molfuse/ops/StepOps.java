// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static io.molfuse.ops.Checks.floating;

import java.util.List;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch.ScalarType;

/**
 * The operators of an optimiser step over many tensors at once. None of them waits for a device, so that a mixed-precision
 * step needs no host synchronisation. They run libtorch's own multi-tensor kernels.
 *
 * <p>Lists may be given as {@link TensorVector}s, which a training loop can keep, or as {@link List}s. In lists of gradients a
 * null or undefined tensor stands for "no gradient" and is skipped. Everything ending up changed is changed in place; new
 * tensors belong to the caller's innermost {@link PointerScope}. Wrong arguments are {@link IllegalArgumentException}s; other
 * failures are {@link MolfuseException}s.
 */
public final class StepOps {
  private StepOps() {}

  /** Parameters of {@link StepOps#fusedAdamW}, after Loshchilov &amp; Hutter 2019 (decoupled weight decay). */
  public static final class AdamW {
    double learningRate = 1e-3;
    double beta1 = 0.9;
    double beta2 = 0.999;
    double weightDecay = 1e-2;
    double epsilon = 1e-8;
    boolean maximize;
    Tensor gradScale;
    Tensor foundInf;

    private AdamW() {}

    /**
     * @param learningRate 1e-3 unless set
     * @return this
     */
    public AdamW learningRate(double learningRate) {
      this.learningRate = Checks.finite("lr", learningRate);
      return this;
    }

    /**
     * @param beta1 decay of the first moment in [0,1), 0.9 unless set
     * @param beta2 decay of the second moment in [0,1), 0.999 unless set
     * @return this
     */
    public AdamW betas(double beta1, double beta2) {
      this.beta1 = beta("beta1", beta1);
      this.beta2 = beta("beta2", beta2);
      return this;
    }

    /**
     * @param weightDecay 1e-2 unless set
     * @return this
     */
    public AdamW weightDecay(double weightDecay) {
      this.weightDecay = Checks.finite("weight_decay", weightDecay);
      return this;
    }

    /**
     * @param epsilon added to the denominator, 1e-8 unless set
     * @return this
     */
    public AdamW epsilon(double epsilon) {
      this.epsilon = Checks.finite("eps", epsilon);
      return this;
    }

    /**
     * @param maximize whether to climb instead of descend
     * @return this
     */
    public AdamW maximize(boolean maximize) {
      this.maximize = maximize;
      return this;
    }

    /**
     * What the gradients are still multiplied by, and whether the step must be skipped.
     *
     * @param gradScale float32 [] or [1], or null: the gradients are divided by it
     * @param foundInf float32 [] or [1], or null: with 1 nothing changes, not even the step counts
     * @return this
     */
    public AdamW scaled(Tensor gradScale, Tensor foundInf) {
      this.gradScale = gradScale;
      this.foundInf = foundInf;
      return this;
    }

    private static double beta(String name, double value) {
      if (!(value >= 0 && value < 1)) {
        throw new IllegalArgumentException(name + ": expected a number in [0,1), got " + value);
      }
      return value;
    }
  }

  /** @return AdamW's usual parameters */
  public static AdamW adamW() {
    return new AdamW();
  }

  /**
   * Multiplies every gradient by invScale in place, in one pass.
   *
   * @param grads floating-point tensors
   * @param invScale float32 [] or [1]
   * @return found_inf, float32 [1] on invScale's device: 1 if any gradient is not finite, else 0
   */
  public static Tensor unscale(List<Tensor> grads, Tensor invScale) {
    try (TensorVector vector = gradients("grads", grads)) {
      return unscale(vector, invScale);
    }
  }

  /**
   * As {@link #unscale(List, Tensor)}.
   *
   * @param grads floating-point tensors
   * @param invScale float32 [] or [1]
   * @return found_inf
   */
  public static Tensor unscale(TensorVector grads, Tensor invScale) {
    scalar("inv_scale", invScale, ScalarType.Float);
    Tensor foundInf = Native.zeroLike(invScale);
    unscale(grads, invScale, foundInf);
    return foundInf;
  }

  /**
   * As {@link #unscale(TensorVector, Tensor)}, into a flag that several calls share.
   *
   * @param grads floating-point tensors
   * @param invScale float32 [] or [1]
   * @param foundInf float32 [] or [1]: set to 1 if any gradient is not finite, else left as it is
   */
  public static void unscale(TensorVector grads, Tensor invScale, Tensor foundInf) {
    Checks.open("grads", grads);
    scalar("inv_scale", invScale, ScalarType.Float);
    scalar("found_inf", foundInf, ScalarType.Float);
    Native.unscale(grads, foundInf, invScale);
  }

  /**
   * Moves the dynamic loss scale after a step: down if the step was skipped, up after growthInterval good ones in a row.
   *
   * @param scale float32 [] or [1], changed
   * @param growthTracker int32 of the same shape: the good steps in a row, changed
   * @param foundInf float32 [] or [1]
   * @param growthFactor usually 2
   * @param backoffFactor usually 0.5
   * @param growthInterval usually 2000
   */
  public static void updateScale(
      Tensor scale,
      Tensor growthTracker,
      Tensor foundInf,
      double growthFactor,
      double backoffFactor,
      long growthInterval) {
    scalar("scale", scale, ScalarType.Float);
    scalar("growth_tracker", growthTracker, ScalarType.Int);
    scalar("found_inf", foundInf, ScalarType.Float);
    Checks.finite("growth_factor", growthFactor);
    Checks.finite("backoff_factor", backoffFactor);
    if (growthInterval < 1) {
      throw new IllegalArgumentException("growth_interval: expected at least 1, got " + growthInterval);
    }
    Native.updateScale(scale, growthTracker, foundInf, growthFactor, backoffFactor, growthInterval);
  }

  /**
   * One AdamW step over a parameter group.
   *
   * @param params parameters, changed
   * @param grads one for each parameter, or undefined: then the parameter is skipped
   * @param expAvgs first moments like the parameters, changed
   * @param expAvgSqs second moments like the parameters, changed
   * @param stateSteps float32 [] each: steps taken so far, incremented
   * @param options learning rate and so on
   */
  public static void fusedAdamW(
      List<Tensor> params,
      List<Tensor> grads,
      List<Tensor> expAvgs,
      List<Tensor> expAvgSqs,
      List<Tensor> stateSteps,
      AdamW options) {
    try (TensorVector p = vector("params", params);
        TensorVector g = gradients("grads", grads);
        TensorVector m = vector("exp_avgs", expAvgs);
        TensorVector v = vector("exp_avg_sqs", expAvgSqs);
        TensorVector s = vector("state_steps", stateSteps)) {
      fusedAdamW(p, g, m, v, s, options);
    }
  }

  /**
   * As {@link #fusedAdamW(List, List, List, List, List, AdamW)}.
   *
   * @param params parameters, changed
   * @param grads one for each parameter, or undefined
   * @param expAvgs first moments, changed
   * @param expAvgSqs second moments, changed
   * @param stateSteps float32 [] each, incremented
   * @param options learning rate and so on
   */
  public static void fusedAdamW(
      TensorVector params,
      TensorVector grads,
      TensorVector expAvgs,
      TensorVector expAvgSqs,
      TensorVector stateSteps,
      AdamW options) {
    fusedAdamW(params, grads, expAvgs, expAvgSqs, null, stateSteps, options);
  }

  /**
   * One AdamW step with the AMSGrad correction of Reddi et al. 2018.
   *
   * @param params parameters, changed
   * @param grads one for each parameter, or undefined
   * @param expAvgs first moments, changed
   * @param expAvgSqs second moments, changed
   * @param maxExpAvgSqs running maxima of the second moments, changed; null for plain AdamW
   * @param stateSteps float32 [] each, incremented
   * @param options learning rate and so on
   */
  public static void fusedAdamW(
      TensorVector params,
      TensorVector grads,
      TensorVector expAvgs,
      TensorVector expAvgSqs,
      TensorVector maxExpAvgSqs,
      TensorVector stateSteps,
      AdamW options) {
    Checks.open("params", params);
    sameLength("grads", grads, params);
    sameLength("exp_avgs", expAvgs, params);
    sameLength("exp_avg_sqs", expAvgSqs, params);
    sameLength("state_steps", stateSteps, params);
    if (maxExpAvgSqs != null) {
      sameLength("max_exp_avg_sqs", maxExpAvgSqs, params);
    }
    Checks.notNull("options", options);
    if (options.gradScale != null) {
      scalar("grad_scale", options.gradScale, ScalarType.Float);
    }
    if (options.foundInf != null) {
      scalar("found_inf", options.foundInf, ScalarType.Float);
    }
    Native.fusedAdamW(params, grads, expAvgs, expAvgSqs, maxExpAvgSqs, stateSteps, options);
  }

  /**
   * Scales all gradients in place so that their joint Euclidean norm is at most maxNorm.
   *
   * @param grads floating-point tensors
   * @param maxNorm at least 0
   * @return the norm before that, float32 [] (float64 [] if any gradient is float64)
   */
  public static Tensor clipGradNorm(List<Tensor> grads, double maxNorm) {
    try (TensorVector vector = gradients("grads", grads)) {
      return clipGradNorm(vector, maxNorm, 2.0);
    }
  }

  /**
   * As {@link #clipGradNorm(List, double)}.
   *
   * @param grads floating-point tensors
   * @param maxNorm at least 0
   * @return the norm before that
   */
  public static Tensor clipGradNorm(TensorVector grads, double maxNorm) {
    return clipGradNorm(grads, maxNorm, 2.0);
  }

  /**
   * As {@link #clipGradNorm(List, double)} with another norm.
   *
   * @param grads floating-point tensors
   * @param maxNorm at least 0
   * @param normType 1, 2, any other positive number, or positive infinity
   * @return the norm before that
   */
  public static Tensor clipGradNorm(TensorVector grads, double maxNorm, double normType) {
    Checks.open("grads", grads);
    return Native.clipGradNorm(grads, maxNorm, normType);
  }

  private static void scalar(String name, Tensor tensor, ScalarType type) {
    String expected = (type == ScalarType.Int ? "int32" : "float32") + " [] or [1]";
    Checks.defined(name, tensor, expected);
    Checks.dims(
        name, tensor, expected, Checks.type(tensor) == type && tensor.dim() <= 1 && tensor.numel() == 1);
  }

  private static void sameLength(String name, TensorVector tensors, TensorVector params) {
    Checks.open(name, tensors);
    if (tensors.size() != params.size()) {
      throw new IllegalArgumentException(
          name + ": expected as many tensors as params, " + params.size() + ", got " + tensors.size());
    }
  }

  private static TensorVector vector(String name, List<Tensor> tensors) {
    Checks.notNull(name, tensors);
    for (int i = 0; i < tensors.size(); i++) {
      floating(name + "[" + i + "]", tensors.get(i), "of any shape");
    }
    return Native.vector(tensors);
  }

  private static TensorVector gradients(String name, List<Tensor> tensors) {
    Checks.notNull(name, tensors);
    for (int i = 0; i < tensors.size(); i++) {
      Tensor tensor = tensors.get(i);
      if (tensor != null && tensor.isNull()) {
        throw new IllegalArgumentException(name + "[" + i + "]: expected a gradient or null, got a closed tensor");
      }
    }
    return Native.vector(tensors);
  }
}
