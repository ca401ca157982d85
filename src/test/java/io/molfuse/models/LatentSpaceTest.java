// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.molfuse.chem.MoleculeDataset;
import io.molfuse.chem.MoleculeException;
import io.molfuse.chem.Vocabulary;
import io.molfuse.train.OneThread;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.assertj.core.data.Offset;
import org.bytedeco.javacpp.PointerScope;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;

@SuppressWarnings("try")
@ExtendWith(OneThread.class)
class LatentSpaceTest {
  private static final Offset<Float> NEAR = within(1e-5f);

  @TempDir Path folder;

  private static float[] row(float[] points, int row, int size) {
    return Arrays.copyOfRange(points, row * size, (row + 1) * size);
  }

  private static double length(float[] vector) {
    double sum = 0;
    for (float value : vector) {
      sum += (double) value * value;
    }
    return Math.sqrt(sum);
  }

  @Test
  void moleculesAreEncodedAsThoseOfADataSet() {
    MoleculeDataset drugs = TestMolecules.drugs(folder);
    try (MolecularVae model = new MolecularVae(TestMolecules.config(0.1), drugs.vocabulary().size(), 1);
        PointerScope scope = new PointerScope()) {
      List<String> smiles = new ArrayList<>();
      // More than one batch.
      for (int i = 0; i < 70; i++) {
        smiles.add(drugs.smiles(i % drugs.size()));
      }
      float[] encoded = new LatentSpace(model).encode(smiles);
      float[] expected = Tensors.toFloats(model.encode(VaeBatch.of(drugs.collate(drugs.entries()))));
      for (int i = 0; i < encoded.length; i++) {
        assertThat(encoded[i]).isCloseTo(expected[i % expected.length], NEAR);
      }
      assertThat(new LatentSpace(model).encode(List.of())).isEmpty();
      assertThatThrownBy(() -> new LatentSpace(model).encode(List.of("C1CC"))).isInstanceOf(MoleculeException.class);
    }
  }

  @Test
  void waysBeginAndEndWhereAsked() {
    float[] from = {3, 0, 1};
    float[] to = {0, 2, 1};
    for (LatentSpace.Path path : LatentSpace.Path.values()) {
      float[] points = LatentSpace.interpolate(from, to, 5, path);
      assertThat(row(points, 0, 3)).containsExactly(from, NEAR);
      assertThat(row(points, 4, 3)).containsExactly(to, NEAR);
    }
    assertThat(row(LatentSpace.interpolate(from, to, 3, LatentSpace.Path.LINEAR), 1, 3)).containsExactly(new float[] {1.5f, 1, 1}, NEAR);
  }

  @Test
  void anArcKeepsItsRadiusAndItsPace() {
    float[] points = LatentSpace.interpolate(new float[] {2, 0}, new float[] {0, 2}, 4, LatentSpace.Path.SPHERICAL);
    for (int i = 0; i < 4; i++) {
      assertThat(row(points, i, 2))
          .containsExactly(new float[] {(float) (2 * Math.cos(i * Math.PI / 6)), (float) (2 * Math.sin(i * Math.PI / 6))}, NEAR);
    }
  }

  @Test
  void whereThereIsNoArcTheWayIsStraight() {
    for (float[] to : new float[][] {{-2, 0}, {4, 0}, {0, 0}}) {
      assertThat(LatentSpace.interpolate(new float[] {2, 0}, to, 3, LatentSpace.Path.SPHERICAL))
          .containsExactly(LatentSpace.interpolate(new float[] {2, 0}, to, 3, LatentSpace.Path.LINEAR), NEAR);
    }
  }

  @Test
  void neighboursAreAtTheirDistance() {
    float[] centre = {1, -2, 3, 0.5f};
    float[] points = LatentSpace.around(centre, 0.5, 2000, 7);
    double[] mean = new double[4];
    for (int i = 0; i < 2000; i++) {
      float[] difference = row(points, i, 4);
      for (int k = 0; k < 4; k++) {
        difference[k] -= centre[k];
        mean[k] += difference[k] / 2000.0;
      }
      assertThat(length(difference)).isCloseTo(0.5 * 2, within(1e-5));
    }
    for (double value : mean) {
      assertThat(value).isCloseTo(0, within(0.06));
    }
    assertThat(LatentSpace.around(centre, 0.5, 3, 7)).containsExactly(Arrays.copyOf(points, 12));
    assertThat(LatentSpace.around(centre, 0.5, 3, 8)).isNotEqualTo(Arrays.copyOf(points, 12));
  }

  @Test
  void whatCannotBeIsNamed() {
    float[] one = {1};
    assertThatThrownBy(() -> LatentSpace.interpolate(one, one, 1, LatentSpace.Path.LINEAR))
        .hasMessage("steps must be at least 2, but is 1");
    assertThatThrownBy(() -> LatentSpace.interpolate(one, new float[2], 2, LatentSpace.Path.LINEAR))
        .hasMessageContaining("must have 1 numbers");
    for (double radius : new double[] {0, -1, Double.NaN, Double.POSITIVE_INFINITY}) {
      assertThatThrownBy(() -> LatentSpace.around(one, radius, 1, 0)).hasMessageStartingWith("radius must be above 0");
    }
  }

  @Test
  void statisticsAreThoseOfTheGaussians() {
    Random random = new Random(2);
    int count = 4000;
    float[] means = new float[3 * count];
    float[] logVars = new float[3 * count];
    for (int i = 0; i < count; i++) {
      double along = 3 * random.nextGaussian();
      double across = random.nextGaussian();
      means[3 * i] = (float) (1 + 0.6 * along - 0.8 * across);
      means[3 * i + 1] = (float) (0.8 * along + 0.6 * across);
      means[3 * i + 2] = 0.5f;
      logVars[3 * i] = (float) Math.log(0.25);
      logVars[3 * i + 1] = -40;
    }
    LatentStatistics statistics = LatentStatistics.of(means, logVars, 3);
    assertThat(statistics.count()).isEqualTo(count);
    assertThat(statistics.mean()[0]).isCloseTo(1, within(0.15));
    assertThat(statistics.variance()[0]).isCloseTo(0.36 * 9 + 0.64, within(0.3));
    assertThat(statistics.variance()[2]).isCloseTo(0, within(1e-9));
    assertThat(statistics.posteriorVariance()[0]).isCloseTo(0.25, within(1e-6));
    assertThat(statistics.posteriorVariance()[1]).isCloseTo(Math.exp(-20), within(1e-12));
    // log_var 0 and mean 0.5.
    assertThat(statistics.kl()[2]).isCloseTo(0.125, within(1e-9));
    double squares = statistics.variance()[0] + statistics.mean()[0] * statistics.mean()[0];
    assertThat(statistics.kl()[0]).isCloseTo((squares + 0.25 - 1 - Math.log(0.25)) / 2, within(1e-5));
    assertThat(statistics.totalKl()).isCloseTo(Arrays.stream(statistics.kl()).sum(), within(1e-12));
    assertThat(statistics.activeUnits()).isEqualTo(2);
    assertThat(statistics.explained()[0]).isCloseTo(0.9, within(0.01));
    assertThat(statistics.explained()[0] + statistics.explained()[1]).isCloseTo(1, within(1e-6));
    // The first component is along (0.6, 0.8).
    for (int i = 0; i < 20; i++) {
      double along = 0.6 * (means[3 * i] - statistics.mean()[0]) + 0.8 * (means[3 * i + 1] - statistics.mean()[1]);
      assertThat(statistics.projection()[2 * i]).isCloseTo(along, within(0.15));
    }
  }

  @Test
  void moleculesThatAreAllAlikeHaveNoDirections() {
    LatentStatistics statistics = LatentStatistics.of(new float[] {1, 2, 1, 2}, new float[4], 2);
    assertThat(statistics.explained()).containsExactly(0, 0);
    assertThat(statistics.projection()).containsOnly(0);
    assertThat(statistics.activeUnits()).isZero();
  }

  @Test
  void reconstructionComparesPositionByPosition() {
    int[] wanted = {Vocabulary.SOS, 4, 4, 5, Vocabulary.EOS};
    Reconstruction.Molecule exact = Reconstruction.compare("CCO", wanted, new Decoded(new int[] {4, 4, 5}, true, "[O][C][C]", -1));
    assertThat(exact.exact()).isTrue();
    assertThat(exact.valid()).isTrue();
    assertThat(exact.tokens()).isEqualTo(4);
    assertThat(exact.rightTokens()).isEqualTo(4);
    Reconstruction.Molecule shorter = Reconstruction.compare("CCO", wanted, new Decoded(new int[] {4, 6}, true, "[C][N]", -1));
    assertThat(shorter.exact()).isFalse();
    assertThat(shorter.rightTokens()).isEqualTo(1);
    Reconstruction.Molecule longer = Reconstruction.compare("CCO", wanted, new Decoded(new int[] {4, 4, 5, 5}, true, "[C][C][O][O]", -1));
    assertThat(longer.rightTokens()).isEqualTo(3);
    assertThat(longer.decoded()).isEqualTo(io.molfuse.chem.Chemistry.canonical("CCOO"));
    assertThat(Reconstruction.compare("CCO", wanted, new Decoded(new int[0], true, "", -1)).valid()).isFalse();
  }

  @Test
  void reconstructionDecodesTheMeans() {
    MoleculeDataset drugs = TestMolecules.drugs(folder);
    try (MolecularVae model = new MolecularVae(TestMolecules.config(0.1), drugs.vocabulary().size(), 1)) {
      int[] entries = {3, 1, 20};
      List<Integer> progress = new ArrayList<>();
      Reconstruction measured = Reconstruction.measure(model, drugs, entries, GenerationOptions.greedy(0), progress::add);
      assertThat(progress).containsExactly(3);
      List<String> smiles = Arrays.stream(entries).mapToObj(drugs::smiles).toList();
      List<Decoded> decoded =
          new Generator(model, drugs.vocabulary()).decodeScored(new LatentSpace(model).encode(smiles), GenerationOptions.greedy(0));
      int right = 0;
      int tokens = 0;
      for (int i = 0; i < 3; i++) {
        Reconstruction.Molecule molecule = measured.molecules().get(i);
        assertThat(molecule.smiles()).isEqualTo(smiles.get(i));
        assertThat(molecule.logProbability()).isCloseTo(decoded.get(i).logProbability(), within(1e-3));
        right += molecule.rightTokens();
        tokens += molecule.tokens();
      }
      assertThat(tokens).isEqualTo(Arrays.stream(entries).map(entry -> drugs.tokenCount(entry) - 1).sum());
      assertThat(measured.tokenAccuracy()).isEqualTo((double) right / tokens);
    }
  }
}
