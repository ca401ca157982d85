// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.List;
import java.util.function.Supplier;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.DeviceType;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;

/** Which operators run in low precision under autocast, and which in f32. */
class AutocastTest extends InScope {
  @Test
  void attentionRunsInTheAutocastTypeAndKeepsBiasesInF32() {
    AttentionCase problem = new AttentionCase(2, 2, 5, 6, 16).bias(1, 2, 5, 6).relative(2);
    Tensor[] leaves = Acceptance.leaves(problem.inputs(ScalarType.Float), ScalarType.Float);
    Tensor out = autocast(() -> problem.fused(leaves)[0]);
    assertThat(Checks.type(out)).isEqualTo(ScalarType.BFloat16);
    Tensor explicit = Attention.apply(
        low(leaves[0]), low(leaves[1]), low(leaves[2]), Attention.options().bias(leaves[3]).relativeBias(leaves[4]));
    assertThat(out.equal(explicit)).isTrue();
    out.sum().backward();
    for (Tensor leaf : leaves) {
      assertThat(Checks.type(leaf.grad())).isEqualTo(ScalarType.Float);
    }
  }

  @Test
  void packedAttentionRunsInTheAutocastType() {
    Tensor[] in = Operators.ATTENTION_VARLEN.inputs(ScalarType.Float);
    assertThat(Checks.type(autocast(() -> Operators.ATTENTION_VARLEN.apply(in)[0]))).isEqualTo(ScalarType.BFloat16);
  }

  @Test
  void decodingFollowsTheTypeOfItsCaches() {
    Tensor query = Tensors.full(1, ScalarType.Float, 2, 3, 8);
    Tensor cache = Tensors.full(1, ScalarType.BFloat16, 2, 3, 4, 8);
    Tensor out = autocast(() -> Attention.decode(query, cache, cache.clone(), Tensors.longs(1, 2), query, query));
    assertThat(Checks.type(out)).isEqualTo(ScalarType.BFloat16);
  }

  @Test
  void graphAttentionRunsInTheAutocastType() {
    Tensor[] in = Operators.GRAPH_ATTENTION.inputs(ScalarType.Float);
    Tensor out = autocast(() -> Operators.GRAPH_ATTENTION.apply(in)[0]);
    assertThat(Checks.type(out)).isEqualTo(ScalarType.BFloat16);
    assertThat(out.equal(Operators.GRAPH_ATTENTION.apply(new Tensor[] {low(in[0]), low(in[1]), low(in[2])})[0])).isTrue();
  }

  @Test
  void theLossTakesLogitsAsTheyComeAndItsStatisticsAreF32() {
    VaeLossCase problem = new VaeLossCase(3, 5, 9, 4);
    Tensor[] in = problem.inputs(ScalarType.Float);
    Tensor total = autocast(() -> problem.result(in).total());
    assertThat(Checks.type(total)).isEqualTo(ScalarType.Float);
    assertThat(total.equal(problem.result(in).total())).isTrue();
    Tensor mixed = autocast(() -> problem.result(new Tensor[] {low(in[0]), in[1], low(in[2])}).total());
    assertThat(Checks.type(mixed)).isEqualTo(ScalarType.Float);
  }

  @Test
  void theLinearLossProjectsInTheAutocastTypeAndItsStatisticsAreF32() {
    Tensor[] in = Operators.LINEAR_VAE_LOSS.inputs(ScalarType.Float);
    Tensor total = autocast(() -> Operators.LINEAR_VAE_LOSS.apply(in)[0]);
    assertThat(Checks.type(total)).isEqualTo(ScalarType.Float);
    Tensor explicit = Operators.LINEAR_VAE_LOSS.apply(new Tensor[] {low(in[0]), low(in[1]), low(in[2]), in[3], in[4]})[0];
    assertThat(total.equal(explicit)).isTrue();
  }

  @Test
  void poolingAndSamplingKeepTheWidestTypeOfTheirInputs() {
    Tensor a = Tensors.full(1, ScalarType.Float, 6, 4);
    Tensor b = Tensors.full(2, ScalarType.BFloat16, 6, 4);
    Tensor ptr = Tensors.longs(0, 2, 6);
    assertThat(Checks.type(autocast(() -> LatentConcat.apply(List.of(a, b), ptr)))).isEqualTo(ScalarType.Float);
    assertThat(Checks.type(autocast(() -> LatentConcat.apply(List.of(b, b), ptr)))).isEqualTo(ScalarType.BFloat16);
    assertThat(Checks.type(autocast(() -> LatentConcat.pooled(List.of(b, a))))).isEqualTo(ScalarType.Float);
    Tensor out = Tensors.zeros(ScalarType.Float, 2, 4);
    assertThat(Checks.type(autocast(() -> LatentConcat.into(out, 0, b, ptr)))).isEqualTo(ScalarType.Float);
    assertThat(Checks.type(autocast(() -> Reparameterize.apply(a, b, 1)))).isEqualTo(ScalarType.Float);
  }

  @Test
  void theEncoderEpilogueKeepsTheWidestTypeOrThatOfItsRow() {
    Tensor a = Tensors.full(1, ScalarType.Float, 6, 4);
    Tensor b = Tensors.full(2, ScalarType.BFloat16, 6, 4);
    Tensor ptr = Tensors.longs(0, 2, 6);
    EncoderEpilogue.Options options = EncoderEpilogue.options().affine(Tensors.zeros(ScalarType.Float, 4), Tensors.zeros(ScalarType.Float, 4));
    assertThat(Checks.type(autocast(() -> EncoderEpilogue.apply(b, options)))).isEqualTo(ScalarType.BFloat16);
    assertThat(Checks.type(autocast(() -> EncoderEpilogue.apply(b, options.residual(a))))).isEqualTo(ScalarType.Float);
    Tensor row = Tensors.zeros(ScalarType.BFloat16, 2, 4);
    assertThat(Checks.type(autocast(() -> EncoderEpilogue.into(row, 0, ptr, a, options).features()))).isEqualTo(ScalarType.BFloat16);
  }

  private static Tensor low(Tensor tensor) {
    return tensor.to(ScalarType.BFloat16);
  }

  private static Tensor autocast(Supplier<Tensor> function) {
    torch.set_autocast_dtype(DeviceType.CPU, ScalarType.BFloat16);
    torch.set_autocast_enabled(DeviceType.CPU, true);
    try {
      return function.get();
    } finally {
      torch.set_autocast_enabled(DeviceType.CPU, false);
    }
  }
}
