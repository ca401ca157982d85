// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.ObjectMapper;
import io.molfuse.ops.HostReads;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.OptimizerParamGroup;
import org.bytedeco.pytorch.SGD;
import org.bytedeco.pytorch.SGDOptions;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** Against the semantics of torch.amp.GradScaler, on the device of {@link Here}. */
@SuppressWarnings("try")
class GradScalerTest {
  private static final float INFINITE = Float.POSITIVE_INFINITY;

  private PointerScope scope;
  private final List<AutoCloseable> open = new ArrayList<>();

  @BeforeEach
  void openScope() {
    scope = new PointerScope();
  }

  @AfterEach
  void closeAll() throws Exception {
    for (AutoCloseable closeable : open) {
      closeable.close();
    }
    scope.close();
  }

  /** A weight whose gradient is what the caller says. */
  private final class Model {
    final ParameterSet set = new ParameterSet();
    final Tensor weight = set.parameter("weight", "g", Here.on(Tensor.create(new float[] {0.5f, -1f, 2f}, 3)));
    final AdamW optimizer = new AdamW(set, Map.of(), 0.1);

    Model() {
      open.add(optimizer);
      open.add(set);
    }

    Tensor loss(float... gradient) {
      return weight.mul(Here.on(Tensor.create(gradient, gradient.length))).sum();
    }

    /** Parameters, moments and step counts. */
    Map<String, float[]> values() {
      Map<String, float[]> values = new TreeMap<>();
      values.put("weight", CheckpointingTest.numbers(weight));
      optimizer.state().forEach((name, tensor) -> values.put(name, CheckpointingTest.numbers(tensor)));
      return values;
    }

    void assertUnchanged(Map<String, float[]> before) {
      values().forEach((name, numbers) -> assertThat(numbers).as(name).isEqualTo(before.get(name)));
    }
  }

  private GradScaler scaler(GradScaler.Options options) {
    GradScaler scaler = options.build();
    open.add(scaler);
    return scaler;
  }

  private static void step(GradScaler scaler, Model model, float gradient) {
    model.optimizer.dropGradients();
    scaler.scale(model.loss(1, gradient, 3)).backward();
    scaler.step(model.optimizer, 0.01);
    scaler.update();
  }

  @Test
  void hasTheDefaultsOfPyTorch() {
    GradScaler scaler = scaler(GradScaler.options());
    assertThat(scaler.state()).isEqualTo(new GradScaler.State(65536, 2.0, 0.5, 2000, 0));
    Model model = new Model();
    assertThat(scaler.scale(model.loss(1, 0, 0)).item_float()).isEqualTo(32768f);
  }

  @Test
  void aScaledStepIsThePlainStepBitForBit() {
    GradScaler scaler = scaler(GradScaler.options());
    Model scaled = new Model();
    Model unscaled = new Model();
    Model plain = new Model();
    for (int i = 0; i < 5; i++) {
      float gradient = 0.1f + i;
      step(scaler, scaled, gradient);
      plain.optimizer.dropGradients();
      plain.loss(1, gradient, 3).backward();
      plain.optimizer.step(0.01);
      unscaled.optimizer.dropGradients();
      scaler.scale(unscaled.loss(1, gradient, 3)).backward();
      scaler.unscale(unscaled.optimizer);
      assertThat(CheckpointingTest.numbers(unscaled.weight.grad())).containsExactly(1f, gradient, 3f);
      scaler.step(unscaled.optimizer, 0.01);
      scaler.update();
    }
    scaled.assertUnchanged(plain.values());
    unscaled.assertUnchanged(plain.values());
  }

  @Test
  void theScaleGrowsAfterTheIntervalAndABadStepStartsItAnew() {
    GradScaler scaler = scaler(GradScaler.options().initialScale(8).growthInterval(3));
    Model model = new Model();
    step(scaler, model, 1);
    step(scaler, model, 1);
    assertThat(scaler.state().growthTracker()).isEqualTo(2);
    assertThat(scaler.scale()).isEqualTo(8);
    step(scaler, model, 1);
    assertThat(scaler.scale()).isEqualTo(16);
    assertThat(scaler.state().growthTracker()).isZero();
    step(scaler, model, 1);
    step(scaler, model, INFINITE);
    assertThat(scaler.scale()).isEqualTo(8);
    assertThat(scaler.state().growthTracker()).isZero();
  }

  @Test
  void followsTheRuleThroughARandomRun() {
    GradScaler scaler = scaler(GradScaler.options().initialScale(1024).growthFactor(4).backoffFactor(0.25).growthInterval(4));
    Model model = new Model();
    Random random = new Random(3);
    double scale = 1024;
    int good = 0;
    int steps = 0;
    for (int i = 0; i < 200; i++) {
      boolean bad = random.nextInt(6) == 0;
      step(scaler, model, bad ? (random.nextBoolean() ? INFINITE : Float.NaN) : 1);
      good = bad ? 0 : good + 1;
      steps += bad ? 0 : 1;
      scale = bad ? scale * 0.25 : good == 4 ? scale * 4 : scale;
      good = good == 4 ? 0 : good;
      assertThat(scaler.scale()).isEqualTo(scale);
      assertThat(scaler.state().growthTracker()).isEqualTo(good);
      assertThat(model.values().get("step.weight")).containsExactly(steps);
    }
  }

  @Test
  void aSkippedStepLeavesParametersAndStateBitForBit() {
    GradScaler scaler = scaler(GradScaler.options());
    Model model = new Model();
    step(scaler, model, 1);
    for (float bad : new float[] {INFINITE, -INFINITE, Float.NaN}) {
      Map<String, float[]> before = model.values();
      step(scaler, model, bad);
      model.assertUnchanged(before);
      // Also if it was unscaled, and clipped, before.
      model.optimizer.dropGradients();
      scaler.scale(model.loss(1, bad, 3)).backward();
      scaler.unscale(model.optimizer);
      assertThat(scaler.overflowed(model.optimizer)).isTrue();
      model.optimizer.clipGradients(1);
      scaler.step(model.optimizer, 0.01);
      scaler.update();
      assertThat(scaler.overflowed(model.optimizer)).isFalse();
      model.assertUnchanged(before);
      step(scaler, model, 1);
      assertThat(model.values().get("weight")).isNotEqualTo(before.get("weight"));
    }
  }

  @Test
  void severalOptimizersStepOnTheirOwnAndTheScaleFollowsTheWorst() {
    GradScaler scaler = scaler(GradScaler.options().initialScale(64));
    Model good = new Model();
    Model bad = new Model();
    Map<String, float[]> before = bad.values();
    scaler.scale(good.loss(1, 2, 3)).backward();
    scaler.scale(bad.loss(1, INFINITE, 3)).backward();
    scaler.unscale(good.optimizer);
    scaler.step(good.optimizer, 0.01);
    scaler.step(bad.optimizer, 0.01);
    scaler.update();
    bad.assertUnchanged(before);
    assertThat(good.values().get("step.weight")).containsExactly(1f);
    assertThat(scaler.scale()).isEqualTo(32);
  }

  @Test
  void callsInAWrongOrderAreErrors() {
    GradScaler scaler = scaler(GradScaler.options());
    Model model = new Model();
    assertIllegal(() -> scaler.step(model.optimizer, 0.01), "no loss was scaled");
    Tensor loss = scaler.scale(model.loss(1, 2, 3));
    assertIllegal(() -> scaler.step(model.optimizer, 0.01), "no gradients");
    assertIllegal(scaler::update, "before step or unscale");
    loss.backward();
    scaler.unscale(model.optimizer);
    assertIllegal(() -> scaler.unscale(model.optimizer), "already called");
    scaler.step(model.optimizer, 0.01);
    assertIllegal(() -> scaler.step(model.optimizer, 0.01), "already called");
    assertIllegal(() -> scaler.unscale(model.optimizer), "after step");
    scaler.update();
    assertIllegal(scaler::update, "before step or unscale");
    scaler.step(model.optimizer, 0.01);
  }

  @Test
  void refusesFloat16Gradients() {
    ParameterSet set = new ParameterSet();
    open.add(set);
    Tensor weight = set.parameter("weight", "g", Here.on(torch.ones(3)).to(ScalarType.Half));
    AdamW optimizer = new AdamW(set, Map.of(), 0);
    open.add(optimizer);
    GradScaler scaler = scaler(GradScaler.options().initialScale(2));
    scaler.scale(weight.to(ScalarType.Float).sum()).backward();
    assertIllegal(() -> scaler.unscale(optimizer), "float16 gradient");
    assertThatThrownBy(() -> GradScaler.options().growthFactor(1)).hasMessageContaining("growth_factor");
    assertThatThrownBy(() -> GradScaler.options().backoffFactor(1)).hasMessageContaining("backoff_factor");
    assertThatThrownBy(() -> GradScaler.options().initialScale(0)).hasMessageContaining("initial_scale");
    assertThatThrownBy(() -> GradScaler.options().growthInterval(0)).hasMessageContaining("growth_interval");
  }

  @Test
  void theStateGoesThroughJsonAndContinues() throws Exception {
    GradScaler scaler = scaler(GradScaler.options().initialScale(4).growthInterval(3));
    Model model = new Model();
    step(scaler, model, 1);
    step(scaler, model, 1);
    ObjectMapper json = new ObjectMapper();
    GradScaler.State state = json.readValue(json.writeValueAsString(scaler.state()), GradScaler.State.class);
    assertThat(state).isEqualTo(scaler.state()).isEqualTo(new GradScaler.State(4, 2, 0.5, 3, 2));
    GradScaler fresh = scaler(GradScaler.options());
    fresh.load(state);
    assertThat(fresh.state()).isEqualTo(state);
    step(fresh, model, 1);
    assertThat(fresh.scale()).isEqualTo(8);
    fresh.load(state);
    assertThat(fresh.state()).isEqualTo(state);
    fresh.update(32);
    assertThat(fresh.scale()).isEqualTo(32);
  }

  @Test
  void aDisabledScalerPassesThrough() {
    GradScaler scaler = scaler(GradScaler.options().enabled(false));
    Model model = new Model();
    Model plain = new Model();
    Tensor loss = model.loss(1, 2, 3);
    assertThat(scaler.scale(loss)).isSameAs(loss);
    loss.backward();
    scaler.unscale(model.optimizer);
    scaler.unscale(model.optimizer);
    scaler.step(model.optimizer, 0.01);
    scaler.update();
    plain.loss(1, 2, 3).backward();
    plain.optimizer.step(0.01);
    model.assertUnchanged(plain.values());
    assertThat(scaler.scale()).isEqualTo(1);
    assertThat(scaler.state()).isNull();
  }

  @Test
  void savesGradientsThatFloat16CannotHold() {
    GradScaler scaler = scaler(GradScaler.options());
    Model model = new Model();
    assertThat(tinyGradient(model, loss -> loss)).isEqualTo(new float[3]);
    float[] scaled = tinyGradient(model, scaler::scale);
    assertThat(scaled).doesNotContain(0f);
    scaler.unscale(model.optimizer);
    assertThat(CheckpointingTest.numbers(model.weight.grad())[0]).isBetween(0.99e-8f, 1.01e-8f);
  }

  /** The gradient of a product in float16 whose loss has the factor 1e-8. */
  private static float[] tinyGradient(Model model, java.util.function.UnaryOperator<Tensor> scale) {
    model.optimizer.dropGradients();
    Tensor out;
    try (Autocast region = Autocast.on(Here.TYPE, ScalarType.Half)) {
      out = torch.linear(Here.on(torch.ones(1, 3)), model.weight.view(1, 3), new TensorOptional());
      assertThat(out.scalar_type().intern()).isEqualTo(ScalarType.Half);
    }
    scale.apply(out.to(ScalarType.Float).sum().mul(new Scalar(1e-8))).backward();
    return CheckpointingTest.numbers(model.weight.grad());
  }

  @Test
  void worksWithLibtorchsOptimizersAndAllTheirGroups() {
    GradScaler scaler = scaler(GradScaler.options().initialScale(16));
    Tensor first = Here.on(Tensor.create(new float[] {1f}, 1)).set_requires_grad(true);
    Tensor second = Here.on(Tensor.create(new float[] {1f}, 1)).set_requires_grad(true);
    SGD optimizer = new SGD(new TensorVector(first), new SGDOptions(0.5));
    optimizer.add_param_group(new OptimizerParamGroup(new TensorVector(second)));
    scaler.scale(first.mul(new Scalar(2)).add(second).sum()).backward();
    scaler.step(optimizer);
    scaler.update();
    assertThat(first.item_float()).isEqualTo(0f);
    assertThat(second.item_float()).isEqualTo(0.5f);
    optimizer.zero_grad();
    scaler.scale(first.add(second.mul(new Scalar(Double.POSITIVE_INFINITY))).sum()).backward();
    scaler.unscale(optimizer);
    scaler.step(optimizer);
    assertIllegal(() -> scaler.step(optimizer), "already called");
    scaler.update();
    assertThat(first.item_float()).isEqualTo(0f);
    assertThat(second.item_float()).isEqualTo(0.5f);
    assertThat(scaler.scale()).isEqualTo(8);
  }

  @Test
  void aLossOnAnotherDeviceThanTheFirstIsScaledThere() {
    GradScaler scaler = scaler(GradScaler.options().initialScale(4));
    Tensor here = Here.on(torch.ones(2)).set_requires_grad(true);
    try (HostReads reads = HostReads.count()) {
      scaler.scale(here.sum()).backward();
      // The meta device has no numbers, but is one.
      Tensor there = torch.ones(2).to(new Device("meta"), ScalarType.Float).set_requires_grad(true);
      Tensor product = scaler.scale(there.sum());
      assertThat(product.is_meta()).isTrue();
      product.backward();
      assertThat(there.grad().is_meta()).isTrue();
      assertThat(reads.soFar()).isZero();
    }
    assertThat(CheckpointingTest.numbers(here.grad())).containsExactly(4f, 4f);
    assertThat(scaler.scale()).isEqualTo(4);
  }

  @Test
  void nothingOnTheStepsPathTakesAValueToTheHost() {
    GradScaler scaler = scaler(GradScaler.options());
    Model model = new Model();
    GradientAccumulator accumulator = new GradientAccumulator(3);
    WeightAverage average = new WeightAverage(model.set.tensors(), 0.9);
    open.add(average);
    try (HostReads reads = HostReads.count()) {
      for (float gradient : new float[] {1, INFINITE, 2}) {
        model.optimizer.dropGradients();
        scaler.scale(accumulator.share(model.loss(1, gradient, 3))).backward();
        accumulator.finish(model.optimizer);
        scaler.unscale(model.optimizer);
        model.optimizer.clipGradients(1);
        scaler.step(model.optimizer, 0.01);
        scaler.update();
        step(scaler, model, gradient);
        average.update();
      }
      assertThat(reads.soFar()).isZero();
      // The count does count.
      scaler.scale();
      assertThat(reads.soFar()).isEqualTo(1);
      SGD optimizer = new SGD(new TensorVector(model.weight), new SGDOptions(0.5));
      scaler.scale(model.loss(1, 2, 3)).backward();
      scaler.step(optimizer);
      assertThat(reads.soFar()).isEqualTo(2);
    }
  }

  private static void assertIllegal(org.assertj.core.api.ThrowableAssert.ThrowingCallable call, String message) {
    assertThatThrownBy(call).isInstanceOf(IllegalStateException.class).hasMessageContaining(message);
  }
}
