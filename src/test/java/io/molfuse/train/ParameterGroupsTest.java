// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.Map;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.LinearImpl;
import org.bytedeco.pytorch.Module;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

@SuppressWarnings("try")
class ParameterGroupsTest {
  private PointerScope scope;

  @BeforeEach
  void openScope() {
    scope = new PointerScope();
  }

  @AfterEach
  void closeScope() {
    scope.close();
  }

  private static Tensor leaf(long... shape) {
    return torch.ones(shape).set_requires_grad(true);
  }

  private static ParameterGroups groups() {
    return new ParameterGroups()
        .add("encoder", 1.0, 0.01, Map.of("e", leaf(2, 2)))
        .add("decoder", 1.2, 0.01, Map.of("d", leaf(2, 2)))
        .add("latent", 0.8, 0, Map.of("l", leaf(2)));
  }

  /** Adam's first step moves each element by the rate, whatever the gradient. */
  @ParameterizedTest
  @EnumSource(LearningRateSchedule.Kind.class)
  void schedulesKeepTheRatiosOfTheGroupsOverAWholeRun(LearningRateSchedule.Kind kind) {
    ParameterGroups groups = groups();
    LearningRates rates = new LearningRates(new LearningRateSchedule(kind, 10, 0.01), 1e-3, 100);
    double last = 0;
    for (int step = 0; step <= 120; step++) {
      Map<String, Double> now = groups.rates(rates.rate());
      assertThat(now.get("encoder")).isPositive().isEqualTo(rates.rate());
      assertThat(now.get("decoder") / now.get("encoder")).isCloseTo(1.2, within(1e-12));
      assertThat(now.get("latent") / now.get("encoder")).isCloseTo(0.8, within(1e-12));
      if (step < 10) {
        assertThat(rates.rate()).isCloseTo(1e-3 * (step + 1) / 10, within(1e-15));
      } else {
        assertThat(rates.rate()).isLessThanOrEqualTo(last);
      }
      last = rates.rate();
      rates.step();
    }
    assertThat(last).isCloseTo(kind == LearningRateSchedule.Kind.CONSTANT ? 1e-3 : 1e-5, within(1e-12));
  }

  @Test
  void aStepMovesEachGroupAtItsOwnRate() {
    ParameterGroups groups = groups();
    LearningRates rates = new LearningRates(new LearningRateSchedule(LearningRateSchedule.Kind.COSINE, 4, 0.01), 1e-2, 10);
    try (AdamW optimizer = new AdamW(groups, AdamW.Settings.USUAL)) {
      groups.parameters().values().forEach(parameter -> parameter.sum().backward());
      optimizer.step(rates.rate());
    }
    double rate = 1e-2 / 4;
    assertThat(moved(groups, "l")).isCloseTo(0.8 * rate, within(1e-7));
    assertThat(moved(groups, "e")).isCloseTo(rate + rate * 0.01, within(1e-7));
    assertThat(moved(groups, "d")).isCloseTo(1.2 * rate + 1.2 * rate * 0.01, within(1e-7));
  }

  private static double moved(ParameterGroups groups, String name) {
    return 1.0 - CheckpointingTest.numbers(groups.parameters().get(name))[0];
  }

  @Test
  void aScheduleContinuesFromItsState() throws Exception {
    LearningRateSchedule schedule = new LearningRateSchedule(LearningRateSchedule.Kind.LINEAR, 5, 0.1);
    LearningRates rates = new LearningRates(schedule, 1e-3, 50);
    for (int i = 0; i < 17; i++) {
      rates.step();
    }
    ObjectMapper json = new ObjectMapper();
    LearningRates other = new LearningRates(schedule, 1, 1);
    other.load(json.readValue(json.writeValueAsString(rates.state()), LearningRates.State.class));
    for (int i = 0; i < 40; i++) {
      assertThat(other.rate()).isEqualTo(rates.rate());
      rates.step();
      other.step();
    }
    assertThatThrownBy(() -> new LearningRates(schedule, 0, 10)).hasMessageContaining("base_rate");
    assertThatThrownBy(() -> new LearningRates(schedule, 1, 0)).hasMessageContaining("total_steps");
  }

  @Test
  void modulesOfLibtorchGiveTheirParametersByName() {
    LinearImpl module = new LinearImpl(3, 2);
    Map<String, Tensor> named = ParameterGroups.named(module);
    assertThat(named).containsOnlyKeys("weight", "bias");
    Tensor before = module.weight().detach().clone();
    try (AdamW optimizer = new AdamW(new ParameterGroups().add("all", 1, 0.01, named), AdamW.Settings.USUAL)) {
      module.forward(torch.ones(4, 3)).sum().backward();
      optimizer.step(0.1);
      optimizer.dropGradients();
      assertThat(optimizer.state()).containsKeys("exp_avg.weight", "step.bias");
    }
    assertThat(module.weight().detach().equal(before)).isFalse();
    assertThat(module.weight().grad().defined()).isFalse();
  }

  @Test
  void modulesOfOneKindDifferByTheirPrefix() {
    LinearImpl encoder = new LinearImpl(3, 2);
    LinearImpl decoder = new LinearImpl(2, 3);
    ParameterGroups groups =
        new ParameterGroups()
            .add("encoder", 1.0, 0.01, ParameterGroups.named("encoder", encoder))
            .add("decoder", 1.2, 0.01, ParameterGroups.named("decoder", decoder));
    assertThat(groups.parameters()).containsOnlyKeys("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias");
    assertThat(groups.parameters().get("decoder.weight").shape()).containsExactly(3, 2);
  }

  @Test
  void aParameterThatIsThereTwiceIsRefusedUnderAnyName() {
    Tensor weight = leaf(2, 2);
    Tensor again = new Tensor(weight);
    ParameterGroups groups = new ParameterGroups().add("encoder", 1, 0, Map.of("e", weight));
    assertThatThrownBy(() -> groups.add("decoder", 1, 0, Map.of("d", again)))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage("group decoder: d is the same tensor as e; leave one of them out");
    assertThatThrownBy(() -> new ParameterGroups().add("both", 1, 0, Map.of("a", weight, "b", again))).hasMessageContaining("same tensor");
    // A refused group leaves nothing behind.
    groups.add("decoder", 1, 0, Map.of("d", leaf(2, 2)));
    assertThat(groups.parameters()).containsOnlyKeys("e", "d");
  }

  @Test
  void aWeightThatChildrenShareIsNamedOnceAndStepsOnce() {
    LinearImpl child = new LinearImpl(2, 2);
    Module parent = new Module("parent");
    parent.register_module("first", child);
    parent.register_module("second", child);
    Map<String, Tensor> named = ParameterGroups.named(parent);
    assertThat(named).containsOnlyKeys("first.weight", "first.bias");
    float before = CheckpointingTest.numbers(child.weight())[0];
    try (AdamW optimizer = new AdamW(new ParameterGroups().add("all", 1, 0, named), AdamW.Settings.USUAL)) {
      child.weight().sum().backward();
      optimizer.step(0.1);
    }
    assertThat(CheckpointingTest.numbers(child.weight())[0]).isCloseTo(before - 0.1f, within(1e-5f));
  }

  @Test
  void ofASetSeparatesVectorsWhichHaveNoDecay() {
    try (ParameterSet set = new ParameterSet()) {
      set.parameter("w", "decoder", torch.ones(2, 2));
      set.parameter("b", "decoder", torch.ones(2));
      ParameterGroups groups = ParameterGroups.of(set, Map.of("decoder", 1.2), 0.1);
      assertThat(groups.groups()).extracting(ParameterGroups.Group::name).containsExactly("decoder", "decoder.undecayed");
      assertThat(groups.groups()).extracting(ParameterGroups.Group::rateFactor).containsExactly(1.2, 1.2);
      assertThat(groups.groups()).extracting(ParameterGroups.Group::weightDecay).containsExactly(0.1, 0.0);
    }
  }

  @Test
  void refusesWhatCannotBeAGroup() {
    ParameterGroups groups = groups();
    assertThatThrownBy(() -> groups.add("encoder", 1, 0, Map.of())).hasMessageContaining("already a group named encoder");
    assertThatThrownBy(() -> groups.add("x", 1, 0, Map.of("e", leaf(1)))).hasMessageContaining("already a parameter named e");
    assertThatThrownBy(() -> groups.add("x", -1, 0, Map.of())).hasMessageContaining("rate factor");
    assertThatThrownBy(() -> groups.add("x", 1, Double.NaN, Map.of())).hasMessageContaining("weight decay");
    assertThatThrownBy(() -> groups.add("x", 1, 0, Map.of("y", torch.ones(1)))).hasMessageContaining("requires gradients");
  }
}
