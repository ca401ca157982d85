// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.function.Supplier;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;

/** OPERATORS.md 1: each kind of wrong argument is refused by a message that names it, before a kernel runs. */
class AttentionArgumentsTest extends InScope {
  private final Supplier<Tensor> q = () -> Tensors.full(1, ScalarType.Float, 2, 3, 4, 8);
  private final Supplier<Tensor> k = () -> Tensors.full(1, ScalarType.Float, 2, 3, 5, 8);

  @Test
  void missingTensorsAreNamed() {
    refused("query", "null", () -> Attention.apply(null, k.get(), k.get()));
    refused("key", "null", () -> Attention.apply(q.get(), null, k.get()));
    refused("value", "undefined", () -> Attention.apply(q.get(), k.get(), new Tensor()));
    refused("options", "null", () -> Attention.apply(q.get(), k.get(), k.get(), null));
  }

  @Test
  void wrongTypesAreNamed() {
    refused("query", "int64", () -> Attention.apply(q.get().to(ScalarType.Long), k.get(), k.get()));
    refused("key", "Double", () -> Attention.apply(q.get(), k.get().to(ScalarType.Double), k.get()));
    refused("key_lengths", "float32", () -> with(Attention.options().keyLengths(Tensors.zeros(ScalarType.Float, 2))));
    refused("bias", "bool", () -> with(Attention.options().bias(Tensors.zeros(ScalarType.Bool, 4, 5))));
    refused("bias", "Double", () -> with(Attention.options().bias(Tensors.zeros(ScalarType.Double, 4, 5))));
  }

  @Test
  void wrongShapesAreNamed() {
    refused("query", "[3, 4, 8]", () -> Attention.apply(q.get().select(0, 0), k.get(), k.get()));
    refused("key", "[2, 2, 5, 8]", () -> Attention.apply(q.get(), k.get().narrow(1, 0, 2), k.get().narrow(1, 0, 2)));
    refused("value", "[2, 3, 4, 8]", () -> Attention.apply(q.get(), k.get(), k.get().narrow(2, 0, 4)));
    refused("bias", "[2, 5]", () -> with(Attention.options().bias(Tensors.zeros(ScalarType.Float, 2, 5))));
    refused("relative_bias", "[3, 4]", () -> with(Attention.options().relativeBias(Tensors.zeros(ScalarType.Float, 3, 4))));
    refused("relative_bias", "[2, 5]", () -> with(Attention.options().relativeBias(Tensors.zeros(ScalarType.Float, 2, 5))));
    refused("key_lengths", "[3]", () -> with(Attention.options().keyLengths(Tensors.longs(1, 1, 1))));
  }

  @Test
  void headSizesAreMultiplesOfEightUpTo256() {
    for (long d : new long[] {4, 12, 264}) {
      Tensor x = Tensors.full(1, ScalarType.Float, 1, 1, 2, d);
      refused("query", Long.toString(d), () -> Attention.apply(x, x, x));
    }
  }

  @Test
  void valuesOutOfRangeAreNamed() {
    refused("key_lengths", "6", () -> with(Attention.options().keyLengths(Tensors.longs(1, 6))));
    refused("key_lengths", "-1", () -> with(Attention.options().keyLengths(Tensors.longs(-1, 2))));
    refused("dropout_p", "1.0", () -> Attention.options().dropout(1.0));
    refused("dropout_p", "-0.1", () -> Attention.options().dropout(-0.1, 3));
    refused("dropout_p", "NaN", () -> Attention.options().dropout(Double.NaN));
    refused("scale", "Infinity", () -> Attention.options().scale(Double.POSITIVE_INFINITY));
  }

  @Test
  void tensorsOnDifferentDevicesAreNamed() {
    Tensor meta = k.get().to(new Device("meta"), ScalarType.Float);
    refused("key", "meta", () -> Attention.apply(q.get(), meta, k.get()));
  }

  @Test
  void packedFormRefusesWhatItCannotUse() {
    Tensor x = Tensors.full(1, ScalarType.Float, 6, 2, 8);
    Tensor cu = Tensors.ints(0, 2, 6);
    refused("bias", "packed", () -> Attention.varlen(x, x, x, cu, cu, 4, 4, Attention.options().bias(x)));
    refused("key_lengths", "packed", () -> Attention.varlen(x, x, x, cu, cu, 4, 4, Attention.options().keyLengths(cu)));
  }

  @Test
  void packedFormChecksItsOffsets() {
    Tensor x = Tensors.full(1, ScalarType.Float, 6, 2, 8);
    Tensor good = Tensors.ints(0, 2, 6);
    refused("cu_seqlens_q", "7", () -> Attention.varlen(x, x, x, Tensors.ints(0, 2, 7), good, 5, 4));
    refused("cu_seqlens_k", "1", () -> Attention.varlen(x, x, x, good, Tensors.ints(1, 2, 6), 4, 4));
    refused("cu_seqlens_q", "2", () -> Attention.varlen(x, x, x, Tensors.ints(0, 4, 2, 6), Tensors.ints(0, 2, 4, 6), 4, 4));
    refused("cu_seqlens_k", "[4]", () -> Attention.varlen(x, x, x, good, Tensors.ints(0, 2, 4, 6), 4, 4));
    refused("max_seqlen_q", "3", () -> Attention.varlen(x, x, x, good, good, 3, 4));
    refused("cu_seqlens_q", "Long", () -> Attention.varlen(x, x, x, Tensors.longs(0, 2, 6), good, 4, 4));
  }

  @Test
  void decodeChecksItsCachesAndLengths() {
    Tensor query = Tensors.full(1, ScalarType.Float, 2, 3, 8);
    Tensor cache = Tensors.full(1, ScalarType.Float, 2, 3, 4, 8);
    refused("lengths", "5", () -> Attention.decode(query, cache, cache.clone(), Tensors.longs(5, 1)));
    refused("lengths", "4", () -> Attention.decode(query, cache, cache.clone(), Tensors.longs(4, 1), query, query));
    refused("value_new", "null", () -> Attention.decode(query, cache, cache.clone(), Tensors.longs(1, 1), query, null));
    refused("value_cache", "[2, 3, 3, 8]", () -> Attention.decode(query, cache, cache.narrow(2, 0, 3), Tensors.longs(1, 1)));
    refused("key_cache", "[2, 2, 4, 8]", () -> Attention.decode(query, cache.narrow(1, 0, 2), cache, Tensors.longs(1, 1)));
    refused("value_cache", "float64", () -> Attention.decode(query, cache, cache.to(ScalarType.Double), Tensors.longs(1, 1)));
  }

  private Tensor with(Attention.Options options) {
    return Attention.apply(q.get(), k.get(), k.get(), options);
  }

  static void refused(String argument, String came, ThrowingCallable call) {
    assertThatThrownBy(call)
        .isExactlyInstanceOf(IllegalArgumentException.class)
        .hasMessageContaining(argument)
        .hasMessageContaining(came)
        .hasMessageNotContaining("frame #")
        .hasMessageNotContaining("Exception raised from");
  }
}
