// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.molfuse.chem.GraphBatch;
import io.molfuse.chem.MoleculeDataset;
import io.molfuse.chem.Vocabulary;
import io.molfuse.ops.VaeLoss;
import io.molfuse.train.LearningRateSchedule;
import io.molfuse.train.OneThread;
import io.molfuse.train.StepReport;
import io.molfuse.train.Trainer;
import io.molfuse.train.TrainingConfig;
import io.molfuse.train.TrainingListener;
import io.molfuse.train.TrainingState;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;

@SuppressWarnings("try")
@ExtendWith(OneThread.class)
class KlTermTest {
  @TempDir static Path folder;

  private static List<Double> factors(KlSchedule schedule, int steps) {
    List<Double> factors = new ArrayList<>();
    for (int step = 0; step < steps; step++) {
      factors.add(schedule.factor(step));
    }
    return factors;
  }

  @Test
  void weightsFollowTheirCourse() {
    assertThat(factors(KlSchedule.FULL, 3)).containsExactly(1.0, 1.0, 1.0);
    assertThat(factors(new KlSchedule(KlSchedule.Kind.LINEAR, 4, 1, 1), 6)).containsExactly(0.0, 0.25, 0.5, 0.75, 1.0, 1.0);
    assertThat(factors(new KlSchedule(KlSchedule.Kind.CYCLICAL, 4, 2, 0.5), 10))
        .containsExactly(0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0, 1.0, 1.0);
    assertThat(new KlSchedule(KlSchedule.Kind.CYCLICAL, 4, 2, 0.5).end()).isEqualTo(6);
    assertThat(new KlSchedule(KlSchedule.Kind.CYCLICAL, Long.MAX_VALUE, Integer.MAX_VALUE, 1).factor(Long.MAX_VALUE - 1))
        .isCloseTo(1, within(1e-9));
  }

  @Test
  void valuesOutOfRangeAreRefused() {
    assertThatThrownBy(() -> new KlSchedule(KlSchedule.Kind.LINEAR, 0, 1, 1)).hasMessage("kl.steps must be at least 1, but is 0");
    assertThatThrownBy(() -> new KlSchedule(KlSchedule.Kind.CYCLICAL, 1, 0, 1)).hasMessage("kl.cycles must be at least 1, but is 0");
    assertThatThrownBy(() -> new KlSchedule(KlSchedule.Kind.CYCLICAL, 1, 1, 0))
        .hasMessage("kl.rise must be above 0 and at most 1, but is 0.0");
    assertThatThrownBy(() -> new KlTerm(1, KlSchedule.FULL, -1)).hasMessage("free_bits must be at least 0, but is -1.0");
  }

  /** Against the formula itself, differentiated by libtorch: sum of max(KL[j], threshold) over L. */
  @Test
  void freeBitsHaveTheFormulasValueAndGradient() {
    double threshold = 0.4;
    double beta = 0.7;
    try (PointerScope scope = new PointerScope()) {
      torch.manual_seed(4);
      Tensor[] mean = leaves();
      Tensor[] logVar = leaves();
      Tensor logits = torch.randn(6, 3, 8);
      Tensor targets = torch.full(new long[] {6, 3}, new Scalar(2), new TensorOptions(ScalarType.Long));
      FreeBits free = FreeBits.of(mean[0], logVar[0], threshold);
      VaeLoss.Result parts =
          VaeLoss.apply(logits, targets, free.mean(), free.logVar(), VaeLoss.options().beta(beta).padIndex(Vocabulary.PAD));
      Tensor total = parts.total().add(free.excess().mul(new Scalar(beta)));
      total.backward();

      Tensor divergence = FreeBits.divergence(mean[1], logVar[1]);
      long below = divergence.lt(new Scalar(threshold)).sum().item_long();
      assertThat(below).isBetween(1L, 14L);
      Tensor expected = parts.recon().detach().add(divergence.clamp_min(new Scalar(threshold)).mean().mul(new Scalar(beta)));
      expected.backward();
      assertThat(total.item_float()).isCloseTo(expected.item_float(), within(1e-5f));
      assertThat(parts.kl().item_float()).isCloseTo(divergence.mean().item_float(), within(1e-5f));
      close(mean[0].grad(), mean[1].grad());
      close(logVar[0].grad(), logVar[1].grad());
      assertThat(mean[0].grad().abs().sum().item_float()).isPositive();
    }
  }

  /** Twice the same [6,15], of which some columns are near the prior. */
  private static Tensor[] leaves() {
    Tensor scales = torch.linspace(new Scalar(0.05), new Scalar(2.0), 15);
    Tensor values = torch.randn(6, 15).mul(scales);
    Tensor[] twice = {values.clone(), values.clone()};
    for (Tensor leaf : twice) {
      leaf.set_requires_grad(true);
    }
    return twice;
  }

  private static void close(Tensor actual, Tensor expected) {
    float[] a = Tensors.toFloats(actual);
    float[] b = Tensors.toFloats(expected);
    for (int i = 0; i < a.length; i++) {
      assertThat(a[i]).isCloseTo(b[i], within(1e-6f));
    }
  }

  @Test
  void freeBitsKeepMoreInTheLatent() {
    MoleculeDataset drugs = TestMolecules.drugs(folder);
    double without = divergenceAfterTraining(drugs, 0);
    double with = divergenceAfterTraining(drugs, 0.5);
    assertThat(without).isLessThan(0.2);
    assertThat(with).isGreaterThan(without + 0.1);
  }

  private static double divergenceAfterTraining(MoleculeDataset drugs, double freeBits) {
    KlTerm term = new KlTerm(5, KlSchedule.FULL, freeBits);
    try (MolecularVae model = new MolecularVae(TestMolecules.config(0), drugs.vocabulary().size(), 3);
        Trainer<GraphBatch> trainer = trainer(drugs, new VaeTask(model, term), config(60, 0.003))) {
      List<Map<String, Double>> steps = new ArrayList<>();
      trainer.listener(collecting(steps)).run();
      return steps.get(steps.size() - 1).get("kl_loss");
    }
  }

  private static TrainingConfig config(long steps, double rate) {
    return new TrainingConfig(
        0, steps, 0, rate, Map.of(), new LearningRateSchedule(LearningRateSchedule.Kind.CONSTANT, 0, 1), 0, 1, 1, 1, 0, 11);
  }

  private static Trainer<GraphBatch> trainer(MoleculeDataset drugs, VaeTask task, TrainingConfig config) {
    return new Trainer<>(task, new MoleculeBatches(drugs, drugs.entries(), 16, true, 11), config);
  }

  private static TrainingListener collecting(List<Map<String, Double>> steps) {
    return new TrainingListener() {
      @Override
      public void step(StepReport report) {
        steps.add(report.values());
      }
    };
  }

  @Test
  void theWeightIsReportedAndGoesOnWhereARunWasLeft() {
    MoleculeDataset drugs = TestMolecules.drugs(folder);
    KlTerm term = new KlTerm(0.5, new KlSchedule(KlSchedule.Kind.LINEAR, 4, 1, 1), 0);
    try (MolecularVae model = new MolecularVae(TestMolecules.config(0), drugs.vocabulary().size(), 3)) {
      List<Map<String, Double>> first = new ArrayList<>();
      TrainingState state;
      try (Trainer<GraphBatch> trainer = trainer(drugs, new VaeTask(model, term), config(3, 1e-3))) {
        state = trainer.listener(collecting(first)).run().state();
      }
      assertThat(first).extracting(step -> step.get("beta")).containsExactly(0.0, 0.125, 0.25);
      for (Map<String, Double> step : first) {
        assertThat(step.get("total_loss")).isCloseTo(step.get("recon_loss") + step.get("beta") * step.get("kl_loss"), within(1e-4));
      }
      List<Map<String, Double>> rest = new ArrayList<>();
      try (Trainer<GraphBatch> trainer = trainer(drugs, new VaeTask(model, term), config(6, 1e-3))) {
        trainer.resume(state);
        trainer.listener(collecting(rest)).run();
      }
      assertThat(rest).extracting(step -> step.get("beta")).containsExactly(0.375, 0.5, 0.5);
    }
  }

  @Test
  void validationHasTheFullWeight() {
    MoleculeDataset drugs = TestMolecules.drugs(folder);
    KlTerm term = new KlTerm(0.5, new KlSchedule(KlSchedule.Kind.LINEAR, 4, 1, 1), 0);
    try (MolecularVae model = new MolecularVae(TestMolecules.config(0), drugs.vocabulary().size(), 3);
        PointerScope scope = new PointerScope()) {
      VaeTask task = new VaeTask(model, term);
      GraphBatch batch = drugs.collate(drugs.entries());
      assertThat(task.train(batch, 1).read()).containsEntry("beta", 0.0);
      assertThat(task.evaluate(batch, 1).read()).containsEntry("beta", 0.5);
    }
  }
}
