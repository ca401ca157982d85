// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import static org.assertj.core.api.Assertions.assertThat;

import io.molfuse.chem.MolecularProperty;
import io.molfuse.train.OneThread;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;

/** The counts of docs/molecular_vae.md. */
@ExtendWith(OneThread.class)
class FullSizeModelTest {
  private static final int TOKENS = 39;

  private static final ModelConfig FULL =
      new ModelConfig(
          new ModelConfig.Encoder(10, 8, 8, 256, 0.1),
          new ModelConfig.Latent(1, 128, 8, 0.1),
          new ModelConfig.Decoder(6, 8, 256, 1024, 128, 127, 0.1));

  @Test
  void countsOfThePage() {
    assertThat(FULL.encoder().selectedLayers()).containsExactly(1, 2, 3, 4, 5, 6, 8, 10);
    assertThat(FULL.parameterCount(TOKENS)).isEqualTo(new ParameterCount(151_166_976, 4_458_752, 0, 6_384_127));
    assertThat(FULL.parameterCount(TOKENS).total()).isEqualTo(162_009_855);
  }

  /** Eight layers, one position of memory, fixed absolute positions and 32 relative ones shared by all layers. */
  @Test
  void theReferenceRunsCountIsThatOfEightLayers() {
    ModelConfig eight =
        new ModelConfig(new ModelConfig.Encoder(8, 8, 8, 256, 0.1), new ModelConfig.Latent(1, 128, 1, 0.1), FULL.decoder());
    long absolute = 128L * 256;
    long relative = 5L * 8 * 255;
    assertThat(eight.parameterCount(TOKENS).total() - absolute - relative + 8 * 32).isEqualTo(128_156_967);
  }

  @Test
  void theModelHasAsMany() {
    try (MolecularVae model = new MolecularVae(FULL, TOKENS, 1)) {
      assertThat(model.parameters().count()).isEqualTo(FULL.parameterCount(TOKENS).total());
    }
  }

  @Test
  void smallModelsHaveAsManyOfEachPart() {
    List<ModelConfig> configs =
        List.of(
            TestMolecules.config(0),
            TestMolecules.config(0)
                .with(new ModelConfig.Condition(List.of(MolecularProperty.RINGS, MolecularProperty.WEIGHT), 12, 0.1)),
            new ModelConfig(
                new ModelConfig.Encoder(2, 1, 2, 8, 0),
                new ModelConfig.Latent(4, 16, 4, 0),
                new ModelConfig.Decoder(1, 2, 32, 48, 20, 64, 0)));
    for (ModelConfig config : configs) {
      ParameterCount expected = config.parameterCount(TOKENS);
      try (MolecularVae model = new MolecularVae(config, TOKENS, 1)) {
        assertThat(count(model, "encoder.")).isEqualTo(expected.encoder());
        assertThat(count(model, "latent.condition.")).isEqualTo(expected.condition());
        assertThat(count(model, "latent.")).isEqualTo(expected.latent() + expected.condition());
        assertThat(count(model, "decoder.")).isEqualTo(expected.decoder());
        assertThat(model.parameters().count()).isEqualTo(expected.total());
      }
    }
  }

  private static long count(MolecularVae model, String prefix) {
    return model.parameters().parameters().stream()
        .filter(parameter -> parameter.name().startsWith(prefix))
        .mapToLong(parameter -> parameter.tensor().numel())
        .sum();
  }
}
