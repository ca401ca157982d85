// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static io.molfuse.ops.Checks.floating;

import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;

/**
 * Attention of every node over its in-neighbours.
 *
 * <pre>
 *   out[t,h] = sum over edges e = (s -&gt; t) of dropout(softmax_e(q[t,h] . k[s,h] / sqrt(C))) * v[s,h]
 * </pre>
 *
 * after Shi et al. 2020 ("Masked Label Prediction"), equations 3-4, without edge features. A node without in-edges gives 0;
 * parallel edges count separately. No [E,H,C] tensor is stored in either direction. T is float16, bfloat16, float32 or
 * float64. Query, key and value are differentiable, once.
 *
 * <p>Every result is a new tensor that belongs to the caller's innermost {@link PointerScope}. Wrong arguments are
 * {@link IllegalArgumentException}s; other failures are {@link MolfuseException}s.
 */
public final class GraphAttention {
  private GraphAttention() {}

  /** Scale and dropout. */
  public static final class Options {
    Double scale;
    final Dropout dropout = new Dropout();

    private Options() {}

    /**
     * @param scale factor of the dot products; 1/sqrt(C) unless set
     * @return this
     */
    public Options scale(double scale) {
      this.scale = Checks.finite("scale", scale);
      return this;
    }

    /**
     * Dropout of the softmax weights with a seed drawn from libtorch's default generator at each call.
     *
     * @param p probability of dropping a weight, 0 &lt;= p &lt; 1
     * @return this
     */
    public Options dropout(double p) {
      dropout.set(p);
      return this;
    }

    /**
     * Dropout of the softmax weights by Philox: the same seed gives the same result.
     *
     * @param p probability of dropping a weight, 0 &lt;= p &lt; 1
     * @param seed any number
     * @return this
     */
    public Options dropout(double p, long seed) {
      dropout.set(p, seed, 0);
      return this;
    }

    /**
     * As {@link #dropout(double, long)}, with an offset that separates calls sharing a seed.
     *
     * @param p probability of dropping a weight, 0 &lt;= p &lt; 1
     * @param seed any number
     * @param offset any number, such as a layer or step count
     * @return this
     */
    public Options dropout(double p, long seed, long offset) {
      dropout.set(p, seed, offset);
      return this;
    }
  }

  /** @return options that stand for the default scale and no dropout */
  public static Options options() {
    return new Options();
  }

  /**
   * Without dropout.
   *
   * @param query T [V,H,C]
   * @param key T [V,H,C]
   * @param value T [V,H,C]
   * @param graph V nodes, on the same device
   * @return T [V,H,C]
   */
  public static Tensor apply(Tensor query, Tensor key, Tensor value, Graph graph) {
    return apply(query, key, value, graph, options());
  }

  /**
   * With dropout of the softmax weights, the seed drawn from libtorch's default generator.
   *
   * @param query T [V,H,C]
   * @param key T [V,H,C]
   * @param value T [V,H,C]
   * @param graph V nodes, on the same device
   * @param dropoutP probability of dropping a weight, 0 &lt;= p &lt; 1
   * @return T [V,H,C]
   */
  public static Tensor apply(Tensor query, Tensor key, Tensor value, Graph graph, double dropoutP) {
    return apply(query, key, value, graph, options().dropout(dropoutP));
  }

  /**
   * With reproducible dropout of the softmax weights.
   *
   * @param query T [V,H,C]
   * @param key T [V,H,C]
   * @param value T [V,H,C]
   * @param graph V nodes, on the same device
   * @param dropoutP probability of dropping a weight, 0 &lt;= p &lt; 1
   * @param seed any number
   * @return T [V,H,C]
   */
  public static Tensor apply(Tensor query, Tensor key, Tensor value, Graph graph, double dropoutP, long seed) {
    return apply(query, key, value, graph, options().dropout(dropoutP, seed));
  }

  /**
   * With options.
   *
   * @param query T [V,H,C]
   * @param key T [V,H,C]
   * @param value T [V,H,C]
   * @param graph V nodes, on the same device
   * @param options scale and dropout
   * @return T [V,H,C]
   */
  public static Tensor apply(Tensor query, Tensor key, Tensor value, Graph graph, Options options) {
    floating("query", query, "[V,H,C]", 3);
    floating("key", key, "[V,H,C]", 3);
    floating("value", value, "[V,H,C]", 3);
    Checks.notNull("graph", graph);
    Checks.notNull("options", options);
    return Unfused.on()
        ? Unfused.graphAttention(query, key, value, graph, options)
        : Native.graphAttention(query, key, value, graph, options);
  }
}
