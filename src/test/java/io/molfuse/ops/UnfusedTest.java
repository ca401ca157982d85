// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.stream.Stream;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** The chains of libtorch's operators give what the kernels give, whatever the options. */
class UnfusedTest extends InScope {
  private static final double TOLERANCE = 1e-10;

  @AfterEach
  void fuse() {
    Molfuse.setFused(true);
  }

  private static void same(Acceptance.Formula formula, Tensor... inputs) {
    List<double[]> kernels = run(formula, inputs);
    Molfuse.setFused(false);
    List<double[]> chains = run(formula, inputs);
    Molfuse.setFused(true);
    assertThat(chains).hasSameSizeAs(kernels);
    for (int i = 0; i < kernels.size(); i++) {
      assertThat(chains.get(i)).as("result %d", i).hasSameSizeAs(kernels.get(i));
      double magnitude = Math.max(1, Tensors.maxAbs(kernels.get(i)));
      assertThat(Tensors.maxDifference(chains.get(i), kernels.get(i))).as("result %d", i).isLessThan(TOLERANCE * magnitude);
    }
  }

  private static List<double[]> run(Acceptance.Formula formula, Tensor[] inputs) {
    Tensor[] leaves = Acceptance.leaves(inputs, ScalarType.Double);
    Tensor[] outputs = formula.apply(leaves);
    Random random = new Random(3);
    Tensor[] upstream = Stream.of(outputs).map(out -> Tensors.normal(random, ScalarType.Double, out.shape())).toArray(Tensor[]::new);
    return Stream.concat(Stream.of(outputs), Acceptance.gradients(outputs, leaves, upstream).stream()).map(Tensors::values).toList();
  }

  private static Tensor[] normals(long[]... shapes) {
    Random random = new Random(23);
    return Stream.of(shapes).map(shape -> Tensors.normal(random, ScalarType.Double, shape)).toArray(Tensor[]::new);
  }

  @Test
  void attention() {
    List<AttentionCase> cases =
        List.of(
            new AttentionCase(2, 3, 11, 11, 16),
            new AttentionCase(2, 3, 11, 11, 16).causal(),
            new AttentionCase(2, 3, 7, 11, 16).causal(),
            new AttentionCase(2, 3, 7, 11, 16).bias(1, 3, 1, 11).causal(),
            new AttentionCase(3, 2, 21, 27, 24).bias(1, 2, 21, 27).relative(4).keyLengths(27, 0, 13),
            new AttentionCase(2, 2, 9, 9, 8).relative(3).causal(),
            new AttentionCase(3, 2, 5, 6, 8).keyLengths(6, 0, 2));
    for (AttentionCase each : cases) {
      same(each::fused, each.inputs(ScalarType.Double));
    }
    same(
        in -> new Tensor[] {Attention.apply(in[0], in[1], in[2], Attention.options().scale(0.7))},
        normals(new long[] {2, 2, 5, 8}, new long[] {2, 2, 6, 8}, new long[] {2, 2, 6, 8}));
  }

  @Test
  void graphAttention() {
    try (Graph graph = Graphs.random(new Random(1), 30, 60).build()) {
      Tensor[] in = normals(new long[] {30, 3, 20}, new long[] {30, 3, 20}, new long[] {30, 3, 20});
      same(x -> new Tensor[] {GraphAttention.apply(x[0], x[1], x[2], graph)}, in);
      same(x -> new Tensor[] {GraphAttention.apply(x[0], x[1], x[2], graph, GraphAttention.options().scale(0.3))}, in);
    }
  }

  @Test
  void losses() {
    for (VaeLoss.Reduction reduction : VaeLoss.Reduction.values()) {
      VaeLossCase rows = new VaeLossCase(4, 9, 23, 6).reduction(reduction);
      same(rows::fused, rows.inputs(ScalarType.Double));
      VaeLossCase columns = new VaeLossCase(4, 9, 23, 6).classSecond().reduction(reduction);
      same(columns::fused, columns.inputs(ScalarType.Double));
      Tensor targets = rows.targets();
      VaeLoss.Options options = VaeLoss.options().beta(0.25).reduction(reduction);
      same(
          in -> VaeLossCase.outputs(VaeLoss.linear(in[0], in[1], in[2], targets, in[3], in[4], options), reduction),
          normals(new long[] {4, 9, 20}, new long[] {23, 20}, new long[] {23}, new long[] {4, 6}, new long[] {4, 6}));
      same(
          in -> VaeLossCase.outputs(VaeLoss.linear(in[0], in[1], null, targets, null, null, options), reduction),
          normals(new long[] {4, 9, 20}, new long[] {23, 20}));
    }
  }

  @Test
  void pooling() {
    Tensor graphPtr = Tensors.longs(0, 5, 5, 25);
    Tensor[] layers = normals(new long[] {25, 12}, new long[] {25, 7});
    same(in -> new Tensor[] {LatentConcat.apply(List.of(in), graphPtr)}, layers);
    same(
        in -> {
          Tensor out = torch.empty(new long[] {3, 19}, new TensorOptions(ScalarType.Double), null);
          out = LatentConcat.into(out, 0, in[0], graphPtr);
          return new Tensor[] {LatentConcat.into(out, 12, in[1], graphPtr)};
        },
        layers);
    same(in -> new Tensor[] {LatentConcat.pooled(List.of(in))}, normals(new long[] {5, 12}, new long[] {5, 3}));
  }

  @Test
  void encoderEpilogue() {
    Tensor graphPtr = Tensors.longs(0, 5, 5, 25);
    Tensor[] inputs = normals(new long[] {25, 12}, new long[] {25, 12}, new long[] {12}, new long[] {12});
    for (boolean training : new boolean[] {true, false}) {
      same(
          in -> {
            Tensor mean = torch.zeros(new long[] {12}).to(ScalarType.Double);
            Tensor variance = torch.ones(new long[] {12}).to(ScalarType.Double);
            Tensor pooled = torch.empty(new long[] {3, 12}, new TensorOptions(ScalarType.Double), null);
            EncoderEpilogue.Options options =
                EncoderEpilogue.options().residual(in[1]).affine(in[2], in[3]).running(mean, variance).training(training).momentum(0.2);
            Tensor features = EncoderEpilogue.apply(in[0], options);
            EncoderEpilogue.Result both = EncoderEpilogue.into(pooled, 0, graphPtr, in[0], options);
            return new Tensor[] {features, both.features(), both.pooled(), mean, variance};
          },
          inputs);
    }
    same(in -> new Tensor[] {EncoderEpilogue.apply(in[0], EncoderEpilogue.options())}, inputs[0]);
  }

  @Test
  void reparameterizeDrawsFromTheRightGaussian() {
    Molfuse.setFused(false);
    Tensor mean = torch.full(new long[] {1000, 50}, new org.bytedeco.pytorch.Scalar(3.0)).set_requires_grad(true);
    Tensor logVar = torch.full(new long[] {1000, 50}, new org.bytedeco.pytorch.Scalar(Math.log(4))).set_requires_grad(true);
    Tensor drawn = Reparameterize.apply(mean, logVar, 1);
    double[] values = Tensors.values(drawn);
    double average = Arrays.stream(values).average().orElseThrow();
    assertThat(average).isBetween(2.9, 3.1);
    assertThat(Arrays.stream(values).map(value -> (value - average) * (value - average)).average().orElseThrow()).isBetween(3.8, 4.2);
    drawn.sum().backward();
    assertThat(Tensors.values(mean.grad())).containsOnly(1);
    double[] slopes = Tensors.values(logVar.grad());
    for (int i = 0; i < slopes.length; i++) {
      assertThat(slopes[i]).isCloseTo((values[i] - 3) / 2, org.assertj.core.data.Offset.offset(1e-5));
    }
  }

  /** Chains make many tensors; none but the result may outlive the call. */
  @Test
  void keepsNothingButTheResult() {
    Tensor[] in = new AttentionCase(3, 2, 21, 27, 24).bias(1, 2, 21, 27).relative(4).inputs(ScalarType.Float);
    AttentionCase each = new AttentionCase(3, 2, 21, 27, 24).bias(1, 2, 21, 27).relative(4).causal();
    Molfuse.setFused(false);
    try (PointerScope scope = new PointerScope()) {
      Tensor out = each.fused(in)[0];
      long before = Pointer.totalCount();
      for (int i = 0; i < 10; i++) {
        each.fused(in)[0].close();
      }
      assertThat(Pointer.totalCount()).isEqualTo(before);
      assertThat(Tensors.values(out)).isNotEmpty();
    }
  }
}
