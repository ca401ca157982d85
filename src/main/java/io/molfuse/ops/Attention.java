// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static io.molfuse.ops.Checks.dims;
import static io.molfuse.ops.Checks.floating;
import static io.molfuse.ops.Checks.index;
import static io.molfuse.ops.Checks.sameType;

import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;

/**
 * Fused scaled dot-product attention with learned biases.
 *
 * <pre>
 *   score[b,h,i,j] = scale * q_i . k_j + bias[b,h,i,j] + relative_bias[h, clamp(j - i - (M-N), -R, R) + R]
 *   visible(b,i,j) = j &lt; key_lengths[b]  and  (not causal or j &lt;= i + M - N)
 *   out            = dropout(softmax over visible j of score) . value
 * </pre>
 *
 * after Vaswani et al. 2017 (attention), Dao et al. 2022 (online softmax, recomputation in backward), Raffel et al. 2020 and
 * Shaw et al. 2018 (relative positions). Neither direction stores anything of size N x M. A query that sees no key gives 0
 * and adds nothing to any gradient.
 *
 * <p>T below is float16, bfloat16, float32 or float64, one for query, key and value; under autocast other floating-point
 * types are cast to the autocast type first. S is float64 if T is float64, else float32. Strides are free. Query, key, value,
 * bias and relative bias are differentiable, once: double backward is refused.
 *
 * <p>Every result is a new tensor that belongs to the caller's innermost {@link PointerScope}. Wrong arguments are
 * {@link IllegalArgumentException}s; other failures are {@link MolfuseException}s.
 */
public final class Attention {
  private Attention() {}

  /** What {@link Attention} does beyond plain attention. Holds references to the tensors given and closes none of them. */
  public static final class Options {
    boolean causal;
    Double scale;
    Tensor bias;
    Tensor relativeBias;
    Tensor keyLengths;
    final Dropout dropout = new Dropout();

    private Options() {}

    /**
     * @param causal whether query i sees only keys j &lt;= i + M - N
     * @return this
     */
    public Options causal(boolean causal) {
      this.causal = causal;
      return this;
    }

    /**
     * @param scale factor of the dot products; 1/sqrt(D) unless set
     * @return this
     */
    public Options scale(double scale) {
      this.scale = Checks.finite("scale", scale);
      return this;
    }

    /**
     * @param bias added to the scores: T or S, [N,M] up to [B,H,N,M] with any size 1 broadcast, differentiable; null for none.
     *     Not for {@link Attention#varlen}.
     * @return this
     */
    public Options bias(Tensor bias) {
      this.bias = bias;
      return this;
    }

    /**
     * @param relativeBias T or S [H,2R+1], differentiable; null for none. Distances beyond R share the outermost entry.
     * @return this
     */
    public Options relativeBias(Tensor relativeBias) {
      this.relativeBias = relativeBias;
      return this;
    }

    /**
     * @param keyLengths int32 or int64 [B], each 0..M: the keys of batch entry b from there on are invisible; null for none.
     *     Not for {@link Attention#varlen}.
     * @return this
     */
    public Options keyLengths(Tensor keyLengths) {
      this.keyLengths = keyLengths;
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

  /** What {@link Attention#decode} does beyond one plain query. Closes none of the tensors given. */
  public static final class DecodeOptions {
    Tensor keyNew;
    Tensor valueNew;
    Tensor relativeBias;
    Double scale;

    private DecodeOptions() {}

    /**
     * Keys and values to write at position lengths[b] of the caches before the query looks at them.
     *
     * @param keyNew T [B,H,D]
     * @param valueNew T [B,H,D]
     * @return this
     */
    public DecodeOptions append(Tensor keyNew, Tensor valueNew) {
      this.keyNew = keyNew;
      this.valueNew = valueNew;
      return this;
    }

    /**
     * @param relativeBias T or S [H,2R+1]; the query stands at the last visible position; null for none
     * @return this
     */
    public DecodeOptions relativeBias(Tensor relativeBias) {
      this.relativeBias = relativeBias;
      return this;
    }

    /**
     * @param scale factor of the dot products; 1/sqrt(D) unless set
     * @return this
     */
    public DecodeOptions scale(double scale) {
      this.scale = Checks.finite("scale", scale);
      return this;
    }
  }

  /** @return options that stand for plain attention */
  public static Options options() {
    return new Options();
  }

  /** @return options that stand for a plain look-up in the caches */
  public static DecodeOptions decodeOptions() {
    return new DecodeOptions();
  }

  /**
   * Plain attention.
   *
   * @param query T [B,H,N,D], D a multiple of 8 in 8..256
   * @param key T [B,H,M,D]
   * @param value T [B,H,M,D]
   * @return T [B,H,N,D] in query's memory order
   */
  public static Tensor apply(Tensor query, Tensor key, Tensor value) {
    return apply(query, key, value, options());
  }

  /**
   * Attention with options.
   *
   * @param query T [B,H,N,D], D a multiple of 8 in 8..256
   * @param key T [B,H,M,D]
   * @param value T [B,H,M,D]
   * @param options biases, masks, dropout
   * @return T [B,H,N,D] in query's memory order
   */
  public static Tensor apply(Tensor query, Tensor key, Tensor value, Options options) {
    floating("query", query, "[B,H,N,D]", 4);
    floating("key", key, "[B,H,M,D]", 4);
    floating("value", value, "[B,H,M,D]", 4);
    Checks.notNull("options", options);
    if (options.bias != null) {
      floating("bias", options.bias, "broadcastable to [B,H,N,M]");
    }
    checkRelativeBias(options.relativeBias);
    if (options.keyLengths != null) {
      index("key_lengths", options.keyLengths, "[B]", 1);
    }
    return Unfused.on() ? Unfused.attention(query, key, value, options) : Native.attention(query, key, value, options);
  }

  /**
   * Plain attention over sequences packed one after the other: no work and no memory for padding.
   *
   * @param query T [Tq,H,D], D a multiple of 8 in 8..256; sequence b is rows cuSeqlensQ[b] up to cuSeqlensQ[b+1]
   * @param key T [Tk,H,D]
   * @param value T [Tk,H,D]
   * @param cuSeqlensQ int32 [B+1], ascending from 0 to Tq
   * @param cuSeqlensK int32 [B+1], ascending from 0 to Tk
   * @param maxSeqlenQ at least the longest query sequence's length
   * @param maxSeqlenK at least the longest key sequence's length
   * @return T [Tq,H,D]
   */
  public static Tensor varlen(
      Tensor query,
      Tensor key,
      Tensor value,
      Tensor cuSeqlensQ,
      Tensor cuSeqlensK,
      long maxSeqlenQ,
      long maxSeqlenK) {
    return varlen(query, key, value, cuSeqlensQ, cuSeqlensK, maxSeqlenQ, maxSeqlenK, options());
  }

  /**
   * As {@link #varlen(Tensor, Tensor, Tensor, Tensor, Tensor, long, long)} with options; in the formula N and M are each
   * sequence's own lengths.
   *
   * @param query T [Tq,H,D]
   * @param key T [Tk,H,D]
   * @param value T [Tk,H,D]
   * @param cuSeqlensQ int32 [B+1]
   * @param cuSeqlensK int32 [B+1]
   * @param maxSeqlenQ at least the longest query sequence's length
   * @param maxSeqlenK at least the longest key sequence's length
   * @param options neither bias nor key lengths
   * @return T [Tq,H,D]
   */
  public static Tensor varlen(
      Tensor query,
      Tensor key,
      Tensor value,
      Tensor cuSeqlensQ,
      Tensor cuSeqlensK,
      long maxSeqlenQ,
      long maxSeqlenK,
      Options options) {
    floating("query", query, "[Tq,H,D]", 3);
    floating("key", key, "[Tk,H,D]", 3);
    floating("value", value, "[Tk,H,D]", 3);
    index("cu_seqlens_q", cuSeqlensQ, "[B+1]", 1);
    index("cu_seqlens_k", cuSeqlensK, "[B+1]", 1);
    Checks.notNull("options", options);
    if (options.bias != null) {
      throw new IllegalArgumentException("bias: expected none in the packed form, got " + Checks.describe(options.bias));
    }
    if (options.keyLengths != null) {
      throw new IllegalArgumentException(
          "key_lengths: expected none in the packed form, where cu_seqlens_k says the lengths, got "
              + Checks.describe(options.keyLengths));
    }
    checkRelativeBias(options.relativeBias);
    return Native.attentionVarlen(query, key, value, cuSeqlensQ, cuSeqlensK, maxSeqlenQ, maxSeqlenK, options);
  }

  /**
   * One query per sequence against a key/value cache, without gradient, for generation.
   *
   * @param query T [B,H,D]
   * @param keyCache T [B,H,capacity,D]
   * @param valueCache T [B,H,capacity,D]
   * @param lengths int32 or int64 [B]: positions of the caches that count
   * @return T [B,H,D]
   */
  public static Tensor decode(Tensor query, Tensor keyCache, Tensor valueCache, Tensor lengths) {
    return decode(query, keyCache, valueCache, lengths, decodeOptions());
  }

  /**
   * Appends to the caches, then attends: the query sees lengths[b] + 1 positions.
   *
   * @param query T [B,H,D]
   * @param keyCache T [B,H,capacity,D], written at position lengths[b]
   * @param valueCache T [B,H,capacity,D], written at position lengths[b]
   * @param lengths int32 or int64 [B]: positions valid before this call, each below capacity; not changed
   * @param keyNew T [B,H,D]
   * @param valueNew T [B,H,D]
   * @return T [B,H,D]
   */
  public static Tensor decode(
      Tensor query, Tensor keyCache, Tensor valueCache, Tensor lengths, Tensor keyNew, Tensor valueNew) {
    return decode(query, keyCache, valueCache, lengths, decodeOptions().append(keyNew, valueNew));
  }

  /**
   * As {@link #decode(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)} with a relative bias.
   *
   * @param query T [B,H,D]
   * @param keyCache T [B,H,capacity,D]
   * @param valueCache T [B,H,capacity,D]
   * @param lengths int32 or int64 [B]
   * @param keyNew T [B,H,D]
   * @param valueNew T [B,H,D]
   * @param relativeBias T or S [H,2R+1], or null
   * @return T [B,H,D]
   */
  public static Tensor decode(
      Tensor query,
      Tensor keyCache,
      Tensor valueCache,
      Tensor lengths,
      Tensor keyNew,
      Tensor valueNew,
      Tensor relativeBias) {
    return decode(
        query, keyCache, valueCache, lengths, decodeOptions().append(keyNew, valueNew).relativeBias(relativeBias));
  }

  /**
   * One query per sequence against a key/value cache, with options.
   *
   * @param query T [B,H,D]
   * @param keyCache T [B,H,capacity,D]
   * @param valueCache T [B,H,capacity,D]
   * @param lengths int32 or int64 [B]: positions valid before this call; not changed
   * @param options what to append, relative bias, scale
   * @return T [B,H,D]
   */
  public static Tensor decode(
      Tensor query, Tensor keyCache, Tensor valueCache, Tensor lengths, DecodeOptions options) {
    floating("query", query, "[B,H,D]", 3);
    floating("key_cache", keyCache, "[B,H,capacity,D]", 4);
    floating("value_cache", valueCache, "[B,H,capacity,D]", 4);
    sameType("value_cache", valueCache, "key_cache", keyCache);
    index("lengths", lengths, "[B]", 1);
    Checks.notNull("options", options);
    Checks.together("key_new", options.keyNew, "value_new", options.valueNew);
    if (options.keyNew != null) {
      floating("key_new", options.keyNew, "[B,H,D]", 3);
      floating("value_new", options.valueNew, "[B,H,D]", 3);
    }
    checkRelativeBias(options.relativeBias);
    return Native.attentionDecode(query, keyCache, valueCache, lengths, options);
  }

  private static void checkRelativeBias(Tensor relativeBias) {
    if (relativeBias != null) {
      floating("relative_bias", relativeBias, "[H,2R+1]", 2);
      dims("relative_bias", relativeBias, "[H,2R+1] with an odd second size", relativeBias.size(1) % 2 == 1);
    }
  }
}
