// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.List;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.BoolOptional;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** What all operators have in common. */
class EveryOperatorTest extends InScope {
  private static final ScalarType[] TYPES = {ScalarType.Float, ScalarType.Double, ScalarType.BFloat16, ScalarType.Half};

  @ParameterizedTest
  @EnumSource(Operators.class)
  void twoRunsAgreeBitForBit(Operators operator) {
    for (ScalarType type : TYPES) {
      List<double[]> first = operator.run(type);
      for (int repeat = 0; repeat < 5; repeat++) {
        assertSame(operator.run(type), first);
      }
    }
  }

  @ParameterizedTest
  @EnumSource(Operators.class)
  void nothingIsReadFromUninitialisedMemory(Operators operator) {
    for (ScalarType type : TYPES) {
      List<double[]> first = operator.run(type);
      poisonAllocator();
      assertSame(operator.run(type), first);
    }
  }

  @ParameterizedTest
  @EnumSource(Operators.class)
  void doubleBackwardIsRefusedClearly(Operators operator) {
    Tensor[] leaves = Acceptance.leaves(operator.inputs(ScalarType.Double), ScalarType.Double);
    Tensor loss = Tensors.zeros(ScalarType.Double);
    for (Tensor out : operator.apply(leaves)) {
      loss = loss.add(out.mul(out).sum());
    }
    Tensor seed = Tensors.full(1, ScalarType.Double);
    TensorVector grads = torch.grad(
        new TensorVector(loss), new TensorVector(leaves), new TensorVector(seed), new BoolOptional(true), true, true);
    Tensor penalty = Tensors.zeros(ScalarType.Double);
    for (int i = 0; i < leaves.length; i++) {
      penalty = penalty.add(grads.get(i).pow(new Scalar(2.0)).sum());
    }
    Tensor norm = penalty;
    assertThatThrownBy(norm::backward).isInstanceOf(RuntimeException.class).hasMessageContaining("double backward");
  }

  @ParameterizedTest
  @EnumSource(Operators.class)
  void metaTensorsGiveShapesWithoutWork(Operators operator) {
    Tensor[] expected = operator.apply(operator.inputs(ScalarType.BFloat16));
    Tensor[] meta = Arrays.stream(operator.inputs(ScalarType.BFloat16))
        .map(x -> x.to(new Device("meta"), ScalarType.BFloat16)).toArray(Tensor[]::new);
    if (!EnumSet.of(Operators.ATTENTION_SHORT, Operators.LATENT_CONCAT_POOLED, Operators.ENCODER_EPILOGUE, Operators.REPARAMETERIZE)
        .contains(operator)) {
      // The others take index tensors, which these problems make on the CPU: refused, and not read.
      assertThatThrownBy(() -> operator.apply(meta)).isInstanceOf(IllegalArgumentException.class).hasMessageContaining("device");
      return;
    }
    Tensor[] outputs = operator.apply(meta);
    for (int i = 0; i < outputs.length; i++) {
      assertThat(outputs[i].is_meta()).isTrue();
      assertThat(outputs[i].shape()).isEqualTo(expected[i].shape());
      assertThat(Checks.type(outputs[i])).isEqualTo(Checks.type(expected[i]));
    }
  }

  @ParameterizedTest
  @EnumSource(Operators.class)
  void gradientsMayBeAskedForSomeInputsOnly(Operators operator) {
    List<double[]> all = operator.run(ScalarType.Double);
    int outputs = operator.apply(operator.inputs(ScalarType.Double)).length;
    Tensor[] plain = operator.inputs(ScalarType.Double);
    for (int wanted = 0; wanted < plain.length; wanted++) {
      Tensor[] inputs = plain.clone();
      inputs[wanted] = Tensors.leaf(plain[wanted]);
      Tensor[] out = operator.apply(inputs);
      java.util.Random random = new java.util.Random(31);
      Tensor[] upstream = Arrays.stream(out).map(x -> Tensors.normal(random, ScalarType.Double, x.shape())).toArray(Tensor[]::new);
      Tensor grad = Acceptance.gradients(out, new Tensor[] {inputs[wanted]}, upstream).get(0);
      assertThat(Tensors.maxDifference(Tensors.values(grad), all.get(outputs + wanted))).as("input %d", wanted).isLessThan(1e-12);
    }
  }

  @Test
  void resultsBelongToTheInnermostScope() {
    Tensor[] in = Operators.REPARAMETERIZE.inputs(ScalarType.Float);
    Tensor result;
    try (PointerScope inner = new PointerScope()) {
      result = Reparameterize.apply(in[0], in[1], 1);
      assertThat(result.isNull()).isFalse();
    }
    assertThat(result.isNull()).isTrue();
    assertThat(in[0].isNull()).isFalse();
  }

  private static void assertSame(List<double[]> actual, List<double[]> expected) {
    assertThat(actual).hasSameSizeAs(expected);
    for (int i = 0; i < actual.size(); i++) {
      assertThat(actual.get(i)).as("result %d", i).isEqualTo(expected.get(i));
    }
  }

  /** Frees buffers full of NaN in all sizes the problems above allocate, so that the next allocations find them. */
  private static void poisonAllocator() {
    try (PointerScope scope = new PointerScope(); TensorOptions options = new TensorOptions(ScalarType.Float)) {
      List<Tensor> buffers = new ArrayList<>();
      for (long size = 4; size <= 1 << 16; size = size * 5 / 4 + 1) {
        for (int copy = 0; copy < 8; copy++) {
          buffers.add(torch.empty(new long[] {size}, options, null).fill_(new Scalar(Double.NaN)));
        }
      }
    }
  }
}
