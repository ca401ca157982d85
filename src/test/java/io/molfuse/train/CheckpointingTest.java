// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.molfuse.ops.Attention;
import io.molfuse.ops.MolfuseException;
import io.molfuse.ops.Recomputation;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.UnaryOperator;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.BoolOptional;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorArrayRefOptional;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;

/** On the device of {@link Here}. */
@ExtendWith(OneThread.class)
@SuppressWarnings("try")
class CheckpointingTest {
  private PointerScope scope;

  @BeforeEach
  void openScope() {
    scope = new PointerScope();
    Seeds.seedLibtorch(5);
  }

  @AfterEach
  void closeScope() {
    scope.close();
  }

  /** Two linear layers with libtorch's dropout, and attention with its own, on [2,6,16]. */
  private static final class Block {
    final Tensor first = leaf(16, 16);
    final Tensor second = leaf(16, 16);
    final Tensor bias = leaf(2, 9);
    final AtomicInteger calls = new AtomicInteger();

    static Tensor leaf(long... shape) {
      return Here.on(torch.randn(shape).mul(new Scalar(0.3))).set_requires_grad(true);
    }

    Tensor forward(Tensor x) {
      calls.incrementAndGet();
      Tensor hidden = torch.dropout(torch.linear(x, first, new TensorOptional()).tanh(), 0.3, true);
      Tensor heads = hidden.view(2, 6, 2, 8).transpose(1, 2);
      // Without a seed of its own: drawn from the default generator in both runs.
      Tensor attended = Attention.apply(heads, heads, heads, Attention.options().relativeBias(bias).dropout(0.2));
      Tensor joined = attended.transpose(1, 2).reshape(2, 6, 16);
      return torch.linear(joined, second, new TensorOptional()).add(x);
    }

    List<Tensor> parameters() {
      return List.of(first, second, bias);
    }
  }

  @Test
  void gradientsAndDrawsAreTheSameBitForBitWithDropoutAndAttention() {
    assertSameAsPlain(block -> x -> Checkpointing.run(x, block::forward), 4);
  }

  @Test
  void segmentsMayContainSegments() {
    assertSameAsPlain(block -> x -> Checkpointing.run(x, y -> Checkpointing.run(y, block::forward)), 6);
  }

  @Test
  void theSecondRunHasTheAutocastSettingsOfTheFirst() {
    AtomicReference<ScalarType> seen = new AtomicReference<>();
    assertSameAsPlain(
        block ->
            x -> {
              try (Autocast region = Autocast.on(Here.TYPE, ScalarType.BFloat16)) {
                return Checkpointing.run(x, block::forward);
              }
            },
        block ->
            x -> {
              try (Autocast region = Autocast.on(Here.TYPE, ScalarType.BFloat16)) {
                return block.forward(x);
              }
            },
        4);
    try (Autocast region = Autocast.on(Here.TYPE, ScalarType.BFloat16)) {
      Tensor weight = Block.leaf(4, 4);
      Tensor out =
          Checkpointing.run(
              Here.on(torch.ones(2, 4)).set_requires_grad(true),
              x -> {
                Tensor y = torch.linear(x, weight, new TensorOptional());
                seen.set(y.scalar_type().intern());
                return y;
              });
      region.close();
      seen.set(null);
      out.sum().backward();
    }
    assertThat(seen.get()).isEqualTo(ScalarType.BFloat16);
    assertThat(torch.is_autocast_enabled(Here.TYPE)).isFalse();
  }

  @Test
  void aWeightUsedInsideAndOutsideUnderAutocastGetsBothGradients() {
    Tensor weight = Block.leaf(4, 4);
    Tensor x = Here.on(torch.randn(3, 4));
    // A cached copy of the weight would sum its gradients in 16 bits; checkpointing has a copy for each use.
    torch.set_autocast_cache_enabled(false);
    float[] plain = gradient(weight, () -> twice(x, weight, y -> torch.linear(y, weight, new TensorOptional())));
    torch.set_autocast_cache_enabled(true);
    float[] checkpointed =
        gradient(
            weight,
            () -> twice(x, weight, y -> Checkpointing.run(y, z -> torch.linear(z, weight, new TensorOptional()))));
    assertThat(checkpointed).isEqualTo(plain);
  }

  private static Tensor twice(Tensor x, Tensor weight, UnaryOperator<Tensor> inner) {
    try (Autocast region = Autocast.on(Here.TYPE, ScalarType.BFloat16)) {
      return torch.linear(inner.apply(x), weight, new TensorOptional()).to(ScalarType.Float).sum();
    }
  }

  @Test
  void theGeneratorGoesOnAsIfTheSecondRunHadNotBeen() {
    Seeds.seedLibtorch(11);
    Tensor x = Here.on(torch.ones(2, 6, 16)).set_requires_grad(true);
    Tensor out = Checkpointing.run(x, y -> torch.dropout(y, 0.5, true));
    Tensor next = draw();
    out.sum().backward();
    Tensor after = draw();
    Seeds.seedLibtorch(11);
    torch.dropout(Here.on(torch.ones(2, 6, 16)), 0.5, true);
    assertThat(next.equal(draw())).isTrue();
    assertThat(after.equal(draw())).isTrue();
  }

  /** Of the device's generator. */
  private static Tensor draw() {
    return torch.rand_like(Here.on(torch.ones(3)));
  }

  @Test
  void parametersGetGradientsThoughNoInputRequiresOne() {
    Block block = new Block();
    Tensor x = Here.on(torch.randn(2, 6, 16));
    Checkpointing.run(x, block::forward).sum().backward();
    assertThat(block.calls).hasValue(2);
    assertThat(block.first.grad().abs().sum().item_float()).isPositive();
    assertThat(x.grad().defined()).isFalse();
  }

  @Test
  void severalInputsAndOutputsOfAnyType() {
    Tensor values = Block.leaf(4);
    Tensor unused = Block.leaf(2);
    Tensor index = Here.on(torch.tensor(new long[] {2, 0, 2}));
    List<Tensor> out =
        Checkpointing.run(
            List.of(values, index, unused),
            in -> List.of(in.get(0).index_select(0, in.get(1)), in.get(1), in.get(0).mul(new Scalar(3)), in.get(0)));
    assertThat(out).hasSize(4);
    assertThat(out.get(1).requires_grad()).isFalse();
    assertThat(out.get(1).equal(index)).isTrue();
    // The third output is not used.
    out.get(0).sum().add(out.get(3).sum()).backward();
    assertThat(numbers(values.grad())).containsExactly(2f, 1f, 3f, 1f);
    assertThat(unused.grad().defined()).isFalse();
  }

  @Test
  void whatHasAHistoryMustBeAnInput() {
    Tensor leaf = Block.leaf(3);
    Tensor x = Block.leaf(3);
    Tensor plain = leaf.tanh();
    x.mul(plain).mul(plain).sum().backward();
    float[] expected = numbers(leaf.grad());

    leaf.mutable_grad().put(new Tensor());
    Tensor asInput = leaf.tanh();
    Tensor first = Checkpointing.run(List.of(x, asInput), in -> List.of(in.get(0).mul(in.get(1)))).get(0);
    Tensor second = Checkpointing.run(List.of(first, asInput), in -> List.of(in.get(0).mul(in.get(1)))).get(0);
    Checkpointing.backward(second.sum());
    for (int i = 0; i < expected.length; i++) {
      assertThat(numbers(leaf.grad())[i]).isCloseTo(expected[i], within(1e-6f));
    }

    // Captured by two segments: the second run of one releases the graph that the other's goes through.
    Tensor captured = leaf.tanh();
    Tensor both = Checkpointing.run(Checkpointing.run(x, y -> y.mul(captured)), y -> y.mul(captured));
    assertThatThrownBy(() -> Checkpointing.backward(both.sum()))
        .isInstanceOf(MolfuseException.class)
        .hasMessageContaining("a second time")
        .hasMessageContaining("pass it as an input");
    // Captured by one, and used outside.
    Tensor used = leaf.tanh();
    Tensor out = Checkpointing.run(x, y -> y.mul(used)).add(used);
    assertThatThrownBy(() -> Checkpointing.backward(out.sum()))
        .isInstanceOf(MolfuseException.class)
        .hasMessageContaining("a second time")
        .hasMessageContaining("pass it as an input");
  }

  @Test
  void anInputOfTheSecondRunThatIsKeptIsAClosedHandleNotFreedMemory() {
    AtomicReference<Tensor> kept = new AtomicReference<>();
    Tensor x = Block.leaf(3);
    Tensor out =
        Checkpointing.run(
            x,
            y -> {
              kept.set(y);
              return y.tanh();
            });
    assertThat(kept.get().isNull()).isFalse();
    out.sum().backward();
    assertThat(kept.get()).isNotSameAs(x);
    assertThat(kept.get().isNull()).isTrue();
    assertThat(x.isNull()).isFalse();
  }

  @Test
  void withoutGradientsTheFunctionJustRuns() {
    Block block = new Block();
    try (NoGradGuard noGrad = new NoGradGuard()) {
      assertThat(Checkpointing.run(Here.on(torch.randn(2, 6, 16)), block::forward).requires_grad()).isFalse();
    }
    assertThat(block.calls).hasValue(1);
    assertThat(Checkpointing.pending()).isZero();
  }

  @Test
  void theFunctionCanAskWhetherItRunsASecondTime() {
    List<Boolean> answers = new ArrayList<>();
    Tensor x = Block.leaf(3);
    Checkpointing.run(
            x,
            y -> {
              answers.add(Checkpointing.recomputing());
              return y.tanh();
            })
        .sum()
        .backward();
    assertThat(answers).containsExactly(false, true);
    assertThat(Checkpointing.recomputing()).isFalse();
  }

  @Test
  void exceptionsOfTheSecondRunAreTheCauseOfWhatBackwardThrows() {
    IllegalStateException thrown = new IllegalStateException("out of cheese");
    Tensor loss = failing(thrown);
    assertThatThrownBy(() -> Checkpointing.backward(loss))
        .isInstanceOf(MolfuseException.class)
        .hasMessageContaining("out of cheese")
        .hasCause(thrown);
    Tensor other = failing(thrown);
    assertThatThrownBy(other::backward)
        .isInstanceOf(RuntimeException.class)
        .hasMessageContaining("out of cheese")
        .satisfies(e -> assertThat(Recomputation.failure((RuntimeException) e)).isSameAs(thrown));
    assertThat(torch.is_autocast_enabled(Here.TYPE)).isFalse();
    assertThat(Checkpointing.recomputing()).isFalse();
    // Nothing is stuck after a failure.
    Tensor x = Block.leaf(3);
    Checkpointing.run(x, Tensor::tanh).sum().backward();
    assertThat(x.grad().defined()).isTrue();
  }

  @Test
  void exceptionsOfNestedSegmentsKeepTheirCause() {
    IllegalStateException thrown = new IllegalStateException("deep down");
    Tensor x = Block.leaf(3);
    AtomicInteger calls = new AtomicInteger();
    UnaryOperator<Tensor> inner =
        z -> {
          // The third call is the inner segment's own second run, within the outer one's.
          if (calls.incrementAndGet() == 3) {
            throw thrown;
          }
          return z.tanh();
        };
    Tensor out = Checkpointing.run(x, y -> Checkpointing.run(y, inner));
    assertThatThrownBy(() -> Checkpointing.backward(out.sum())).isInstanceOf(MolfuseException.class).hasCause(thrown);
  }

  private static Tensor failing(RuntimeException thrown) {
    Tensor x = Block.leaf(3);
    return Checkpointing.run(
            x,
            y -> {
              if (Checkpointing.recomputing()) {
                throw thrown;
              }
              return y.tanh();
            })
        .sum();
  }

  @Test
  void exceptionsOfTheFirstRunComeAsTheyAre() {
    IllegalStateException thrown = new IllegalStateException("at once");
    int before = Checkpointing.pending();
    assertThatThrownBy(
            () ->
                Checkpointing.run(
                    Block.leaf(3),
                    y -> {
                      throw thrown;
                    }))
        .isSameAs(thrown);
    assertThat(Checkpointing.pending()).isEqualTo(before);
    assertThat(torch.is_autocast_cache_enabled()).isTrue();
  }

  @Test
  void refusesWhatItCannotDo() {
    Tensor x = Block.leaf(3);
    Tensor chosen = Checkpointing.run(x, Tensor::tanh).sum();
    assertThatThrownBy(() -> torch.grad(new TensorVector(chosen), new TensorVector(x)))
        .hasMessageContaining("gradients of chosen inputs through a checkpointed segment");
    Tensor twice = Checkpointing.run(x, Tensor::tanh).sum();
    assertThatThrownBy(() -> twice.backward(new Tensor(), new BoolOptional(true), true, new TensorArrayRefOptional()))
        .hasMessageContaining("double backward through a checkpointed segment");
    Tensor again = Checkpointing.run(x, Tensor::tanh).sum();
    again.backward();
    assertThatThrownBy(again::backward).hasMessageContaining("retain_graph");
    Tensor written = Here.on(torch.ones(3)).mul(x);
    Tensor out = Checkpointing.run(written, Tensor::tanh).sum();
    try (NoGradGuard noGrad = new NoGradGuard()) {
      written.add_(new Scalar(1));
    }
    assertThatThrownBy(out::backward).hasMessageContaining("modified by an inplace operation");
    AtomicInteger calls = new AtomicInteger();
    Tensor uneven =
        Checkpointing.run(List.of(x), in -> calls.getAndIncrement() == 0 ? List.of(in.get(0).tanh()) : List.of()).get(0).sum();
    assertThatThrownBy(() -> Checkpointing.backward(uneven)).hasMessageContaining("1 tensors in the forward pass and 0");
  }

  @Test
  void aKeptGraphRunsBackwardTwice() {
    Tensor x = Block.leaf(3);
    Tensor loss = Checkpointing.run(x, Tensor::tanh).sum();
    loss.backward(new Tensor(), new BoolOptional(true), false, new TensorArrayRefOptional());
    Tensor once = x.grad().clone();
    loss.backward();
    assertThat(x.grad().equal(once.mul(new Scalar(2)))).isTrue();
  }

  @Test
  void deepNestingReachesThreadsOfLibtorch() {
    // Past 60 backwards within each other libtorch goes on in a thread of its own, as it always does for CUDA devices.
    List<Thread> threads = new ArrayList<>();
    Tensor x = Block.leaf(3);
    Tensor out = nested(x, 64, threads);
    Checkpointing.backward(out.sum());
    Tensor expected = x.detach().clone().set_requires_grad(true);
    expected.tanh().sum().backward();
    assertThat(x.grad().equal(expected.grad())).isTrue();
    assertThat(threads).anyMatch(thread -> thread != Thread.currentThread());
    assertThat(threads).filteredOn(thread -> thread != Thread.currentThread()).allMatch(Thread::isDaemon);
  }

  private static Tensor nested(Tensor x, int depth, List<Thread> threads) {
    return Checkpointing.run(
        x,
        y -> {
          threads.add(Thread.currentThread());
          return depth == 1 ? y.tanh() : nested(y, depth - 1, threads);
        });
  }

  @Test
  void exceptionsComeBackFromThreadsOfLibtorch() {
    IllegalStateException thrown = new IllegalStateException("elsewhere");
    Thread here = Thread.currentThread();
    Tensor out = failingElsewhere(Block.leaf(3), 64, here, thrown);
    assertThatThrownBy(() -> Checkpointing.backward(out.sum())).isInstanceOf(MolfuseException.class).hasCause(thrown);
  }

  private static Tensor failingElsewhere(Tensor x, int depth, Thread here, RuntimeException thrown) {
    return Checkpointing.run(
        x,
        y -> {
          if (Thread.currentThread() != here) {
            throw thrown;
          }
          return depth == 1 ? y.tanh() : failingElsewhere(y, depth - 1, here, thrown);
        });
  }

  @Test
  void segmentsAreReleasedWithTheirGraphs() {
    int before = Checkpointing.pending();
    try (PointerScope inner = new PointerScope()) {
      Tensor x = Block.leaf(3);
      Tensor loss = Checkpointing.run(x, Tensor::tanh).sum();
      Tensor never = Checkpointing.run(x, Tensor::tanh).sum();
      assertThat(Checkpointing.pending()).isEqualTo(before + 2);
      loss.backward();
      assertThat(Checkpointing.pending()).isEqualTo(before + 1);
      assertThat(never.requires_grad()).isTrue();
    }
    assertThat(Checkpointing.pending()).isEqualTo(before);
  }

  private static void assertSameAsPlain(java.util.function.Function<Block, UnaryOperator<Tensor>> segment, int calls) {
    assertSameAsPlain(segment, block -> block::forward, calls);
  }

  /** Two segments one after the other, against the same without checkpointing. */
  private static void assertSameAsPlain(
      java.util.function.Function<Block, UnaryOperator<Tensor>> segment,
      java.util.function.Function<Block, UnaryOperator<Tensor>> plainSegment,
      int calls) {
    Seeds.seedLibtorch(7);
    Block plain = new Block();
    Tensor plainInput = Block.leaf(2, 6, 16);
    Seeds.seedLibtorch(7);
    Block checkpointed = new Block();
    Tensor input = Block.leaf(2, 6, 16);

    Seeds.seedLibtorch(8);
    Tensor expected = plainSegment.apply(plain).apply(plainSegment.apply(plain).apply(plainInput));
    expected.square().sum().backward();
    Seeds.seedLibtorch(8);
    Tensor actual = segment.apply(checkpointed).apply(segment.apply(checkpointed).apply(input));
    assertThat(checkpointed.calls).hasValue(2);
    actual.square().sum().backward();

    assertThat(plain.calls).hasValue(2);
    assertThat(checkpointed.calls).hasValue(calls);
    assertThat(actual.equal(expected)).isTrue();
    assertThat(numbers(input.grad())).isEqualTo(numbers(plainInput.grad()));
    for (int i = 0; i < plain.parameters().size(); i++) {
      assertThat(numbers(checkpointed.parameters().get(i).grad())).isEqualTo(numbers(plain.parameters().get(i).grad()));
    }
  }

  private static float[] gradient(Tensor leaf, java.util.function.Supplier<Tensor> loss) {
    leaf.mutable_grad().put(new Tensor());
    loss.get().backward();
    return numbers(leaf.grad());
  }

  static float[] numbers(Tensor tensor) {
    float[] values = new float[(int) tensor.numel()];
    Tensor row = tensor.detach().cpu().to(ScalarType.Float).contiguous();
    new org.bytedeco.javacpp.FloatPointer(row.data_ptr()).get(values);
    return values;
  }
}
