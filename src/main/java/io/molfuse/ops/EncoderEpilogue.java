// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static io.molfuse.ops.Checks.floating;
import static io.molfuse.ops.Checks.index;

import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;

/**
 * What follows the attention of a graph transformer layer, in as few passes over the node features as batch statistics allow.
 *
 * <pre>
 *   x        = input + residual
 *   features = dropout(relu((x - mean) / sqrt(variance + epsilon) * weight + bias))
 *   pooled[b, columnOffset + c] = mean over the nodes of graph b of features[:, c];  an empty graph gives 0
 * </pre>
 *
 * Batch normalisation after Ioffe &amp; Szegedy 2015: in training by the statistics of the batch, which also move the running
 * ones, otherwise by the running statistics. Neither a dropout mask nor the normalised values are stored. T is float16,
 * bfloat16, float32 or float64; S is float64 if T is, else float32. Input, residual, weight and bias are differentiable, once.
 *
 * <p>Every result belongs to the caller's innermost {@link PointerScope}. Wrong arguments are
 * {@link IllegalArgumentException}s; other failures are {@link MolfuseException}s.
 */
public final class EncoderEpilogue {
  private EncoderEpilogue() {}

  /** Everything but the input; training without parameters, residual and dropout unless set. */
  public static final class Options {
    Tensor residual;
    Tensor weight;
    Tensor bias;
    Tensor runningMean;
    Tensor runningVar;
    boolean training = true;
    double momentum = 0.1;
    double epsilon = 1e-5;
    final Dropout dropout = new Dropout();

    private Options() {}

    /**
     * @param residual T [V,C], added to the input
     * @return this
     */
    public Options residual(Tensor residual) {
      this.residual = floating("residual", residual, "[V,C]", 2);
      return this;
    }

    /**
     * @param weight T or S [C]; 1 unless set
     * @param bias T or S [C]; 0 unless set
     * @return this
     */
    public Options affine(Tensor weight, Tensor bias) {
      this.weight = floating("weight", weight, "[C]", 1);
      this.bias = floating("bias", bias, "[C]", 1);
      return this;
    }

    /**
     * Running statistics: in training running = (1 - momentum) * running + momentum * statistic, in place.
     *
     * @param mean S [C]
     * @param variance S [C], of the sample (divided by V - 1)
     * @return this
     */
    public Options running(Tensor mean, Tensor variance) {
      this.runningMean = floating("running_mean", mean, "[C]", 1);
      this.runningVar = floating("running_var", variance, "[C]", 1);
      return this;
    }

    /**
     * @param training whether the batch's own statistics are used, for which V is at least 2; otherwise the running ones
     * @return this
     */
    public Options training(boolean training) {
      this.training = training;
      return this;
    }

    /**
     * @param momentum weight of the batch in the running statistics, 0 to 1; 0.1 unless set
     * @return this
     */
    public Options momentum(double momentum) {
      this.momentum = Checks.finite("momentum", momentum);
      return this;
    }

    /**
     * @param epsilon added to the variance, at least 0; 1e-5 unless set
     * @return this
     */
    public Options epsilon(double epsilon) {
      this.epsilon = Checks.finite("epsilon", epsilon);
      return this;
    }

    /**
     * Dropout with a seed drawn from libtorch's default generator at each call.
     *
     * @param p probability of dropping an element, 0 &lt;= p &lt; 1, rounded to a multiple of 2^-16
     * @return this
     */
    public Options dropout(double p) {
      dropout.set(p);
      return this;
    }

    /**
     * Dropout by Philox: the same seed and offset give the same result.
     *
     * @param p probability of dropping an element, 0 &lt;= p &lt; 1, rounded to a multiple of 2^-16
     * @param seed any number
     * @param offset any number, such as a layer or step count
     * @return this
     */
    public Options dropout(double p, long seed, long offset) {
      dropout.set(p, seed, offset);
      return this;
    }
  }

  /**
   * What {@link #into} gives.
   *
   * @param features T [V,C]
   * @param pooled T [B,W], the tensor given, knowing its gradient
   */
  public record Result(Tensor features, Tensor pooled) {}

  /** @return options of training without parameters, residual and dropout */
  public static Options options() {
    return new Options();
  }

  /**
   * Without pooling.
   *
   * @param input T [V,C]
   * @param options everything else
   * @return T [V,C]
   */
  public static Tensor apply(Tensor input, Options options) {
    floating("input", input, "[V,C]", 2);
    Checks.notNull("options", options);
    return Unfused.on() ? Unfused.encoderEpilogue(input, options) : Native.encoderEpilogue(input, options);
  }

  /**
   * With pooling, as {@link LatentConcat#into} does it, in the same passes.
   *
   * @param pooled T [B,W], written in place in columns columnOffset .. columnOffset+C-1
   * @param columnOffset first column
   * @param graphPtr int32 or int64 [B+1], ascending from 0 to V: the first node of each graph
   * @param input T [V,C]
   * @param options everything else
   * @return the features, and pooled
   */
  public static Result into(Tensor pooled, long columnOffset, Tensor graphPtr, Tensor input, Options options) {
    floating("pooled", pooled, "[B,W]", 2);
    index("graph_ptr", graphPtr, "[B+1]", 1);
    floating("input", input, "[V,C]", 2);
    Checks.notNull("options", options);
    if (columnOffset < 0) {
      throw new IllegalArgumentException("column_offset: expected at least 0, got " + columnOffset);
    }
    if (Unfused.on()) {
      Tensor features = Unfused.encoderEpilogue(input, options);
      return new Result(features, Unfused.latentConcatInto(pooled, columnOffset, features, graphPtr));
    }
    Tensor[] results = Native.encoderEpilogueInto(pooled, columnOffset, graphPtr, input, options);
    return new Result(results[0], results[1]);
  }
}
