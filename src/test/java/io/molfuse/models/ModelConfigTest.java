// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.IntRange;
import org.junit.jupiter.api.Test;

class ModelConfigTest {
  @Test
  void fullSizeModelHasItsOwnSelection() {
    assertThat(new ModelConfig.Encoder(10, 8, 8, 256, 0.1).selectedLayers()).containsExactly(1, 2, 3, 4, 5, 6, 8, 10);
  }

  @Test
  void otherSizesAreEvenlySpaced() {
    assertThat(new ModelConfig.Encoder(9, 3, 1, 8, 0).selectedLayers()).containsExactly(1, 5, 9);
    assertThat(new ModelConfig.Encoder(4, 4, 1, 8, 0).selectedLayers()).containsExactly(1, 2, 3, 4);
    assertThat(new ModelConfig.Encoder(6, 1, 1, 8, 0).selectedLayers()).containsExactly(6);
  }

  @Property
  void exactlySelectedLayersEndingWithTheLast(
      @ForAll @IntRange(min = 1, max = 30) int layers, @ForAll @IntRange(min = 1, max = 30) int selected) {
    if (layers < selected) {
      assertThatThrownBy(() -> new ModelConfig.Encoder(layers, selected, 1, 8, 0))
          .isInstanceOf(IllegalArgumentException.class);
      return;
    }
    int[] numbers = new ModelConfig.Encoder(layers, selected, 1, 8, 0).selectedLayers();
    assertThat(numbers).hasSize(selected).isSorted().doesNotHaveDuplicates();
    assertThat(numbers[0]).isGreaterThanOrEqualTo(1);
    assertThat(numbers[selected - 1]).isEqualTo(layers);
  }

  @Test
  void errorsNameTheSettingWhatWasExpectedAndWhatCame() {
    refuses(() -> new ModelConfig.Encoder(4, 8, 8, 32, 0), "encoder.layers must be at least encoder.selected, 8, but is 4");
    refuses(() -> new ModelConfig.Encoder(0, 0, 8, 32, 0), "encoder.layers must be at least 1, but is 0");
    refuses(() -> new ModelConfig.Encoder(2, 1, 8, 32, 1), "encoder.dropout must be at least 0 and below 1, but is 1.0");
    refuses(() -> new ModelConfig.Latent(8, 256, 4, 0), "latent.memory_slots must equal latent.slots, 8, but is 4");
    refuses(
        () -> new ModelConfig.Decoder(2, 8, 100, 64, 64, 8, 0),
        "decoder.hidden must be decoder.heads, 8, times a multiple of 8 that is at most 256, but is 100");
    refuses(() -> new ModelConfig.Decoder(2, 8, 64, 64, 2, 8, 0), "decoder.max_length must be at least 3, but is 2");
    refuses(() -> new MolecularVae(TestMolecules.config(0), 4, 1), "vocabulary_size must be above 4, the special tokens, but is 4");
  }

  private static void refuses(org.assertj.core.api.ThrowableAssert.ThrowingCallable call, String message) {
    assertThatThrownBy(call).isInstanceOf(IllegalArgumentException.class).hasMessage(message);
  }

  @Test
  void jsonKeepsIt() throws JsonProcessingException {
    ObjectMapper json = new ObjectMapper();
    ModelConfig config = TestMolecules.config(0.1);
    String text = json.writeValueAsString(config);
    assertThat(text).contains("\"memory_slots\":3", "\"feed_forward\":64", "\"max_length\":64");
    assertThat(json.readValue(text, ModelConfig.class)).isEqualTo(config);
    assertThatThrownBy(() -> json.readValue(text.replace("\"channels\":16,", ""), ModelConfig.class))
        .hasMessageContaining("channels");
  }
}
