// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class VocabularyTest {
  private final Vocabulary vocabulary = Vocabulary.fromCounts(Map.of("[C]", 3L, "[O]", 2L, "[N]", 1L, ".", 1L, "[F]", 1L), 100);

  @Test
  void ordersByFrequencyThenText() {
    assertThat(vocabulary.tokens()).containsExactly("<pad>", "<sos>", "<eos>", "<unk>", "[C]", "[O]", ".", "[F]", "[N]");
    assertThat(vocabulary.size()).isEqualTo(9);
    assertThat(vocabulary.id("[O]")).isEqualTo(5);
    assertThat(vocabulary.id("[Br]")).isEqualTo(Vocabulary.UNK);
    assertThat(vocabulary.token(Vocabulary.EOS)).isEqualTo("<eos>");
    assertThatThrownBy(() -> vocabulary.token(9)).isInstanceOf(IndexOutOfBoundsException.class);
  }

  @Test
  void keepsTheMostFrequentOnly() {
    Vocabulary small = Vocabulary.fromCounts(Map.of("[C]", 3L, "[O]", 2L, "[N]", 1L), 6);
    assertThat(small.tokens()).endsWith("[C]", "[O]").hasSize(6);
    assertThatThrownBy(() -> Vocabulary.fromCounts(Map.of("[C]", 1L), 4)).hasMessageContaining("maxVocab");
  }

  @Test
  void encodesAndDecodes() {
    int[] sequence = vocabulary.encode("[C][O][Br]", 128);
    assertThat(sequence).containsExactly(1, 4, 5, 3, 2);
    assertThat(vocabulary.encode("[C][O][Br]", 128)).containsExactly(sequence);
    assertThat(vocabulary.encode("[C][O][N]", 4)).containsExactly(1, 4, 5, 2);
    assertThat(vocabulary.encode("", 2)).containsExactly(1, 2);
    assertThat(vocabulary.decode(new int[] {1, 4, 0, 5, 2, 4})).isEqualTo("[C][O]");
    assertThat(vocabulary.decode(new long[] {9, 1, 4, 6, 5, 9}, 1, 5)).isEqualTo("[C].[O]");
    assertThatThrownBy(() -> vocabulary.encode("[C]", 1)).hasMessageContaining("maxLength");
    assertThatThrownBy(() -> vocabulary.encode("[C", 9)).isInstanceOf(SelfiesException.class);
    assertThatThrownBy(() -> vocabulary.decode(new int[] {99})).isInstanceOf(IndexOutOfBoundsException.class);
  }

  @Test
  void cachedSequencesAreNotShared() {
    vocabulary.encode("[C]", 9)[1] = 77;
    assertThat(vocabulary.encode("[C]", 9)).containsExactly(1, 4, 2);
    // More strings than the cache holds.
    for (int i = 0; i < 10_000; i++) {
      assertThat(vocabulary.encode("[C][" + i + "C]", 9)).containsExactly(1, 4, 3, 2);
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "<pad>,<sos>,<eos>", "<sos>,<pad>,<eos>,<unk>", "<pad>,<sos>,<eos>,<unk>,[C],[C]", "<pad>,<sos>,<eos>,<unk>,C"})
  void refusesWhatIsNoVocabulary(String tokens) {
    assertThatThrownBy(() -> Vocabulary.of(List.of(tokens.split(",")))).isInstanceOf(IllegalArgumentException.class);
    assertThat(Vocabulary.of(vocabulary.tokens())).isEqualTo(vocabulary).hasSameHashCodeAs(vocabulary);
  }
}
