// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.IntStream;
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
  void encodesWhatSplitGives() {
    Random random = new Random(1);
    String characters = "[[[[]]]].COHx";
    for (int i = 0; i < 20_000; i++) {
      StringBuilder text = new StringBuilder();
      for (int n = random.nextInt(30); n > 0; n--) {
        text.append(random.nextInt(3) == 0 ? "[C]" : String.valueOf(characters.charAt(random.nextInt(characters.length()))));
      }
      String selfies = text.toString();
      List<String> symbols;
      try {
        symbols = Selfies.split(selfies);
      } catch (SelfiesException e) {
        assertThatThrownBy(() -> vocabulary.encode(selfies, 99)).isInstanceOf(SelfiesException.class).hasMessage(e.getMessage());
        continue;
      }
      int[] expected =
          IntStream.concat(
                  IntStream.concat(IntStream.of(1), symbols.stream().mapToInt(vocabulary::id)), IntStream.of(2))
              .toArray();
      assertThat(vocabulary.encode(selfies, 99)).as(selfies).containsExactly(expected);
      int most = 2 + random.nextInt(5);
      if (expected.length > most) {
        expected = Arrays.copyOf(expected, most);
        expected[most - 1] = 2;
      }
      assertThat(vocabulary.encode(selfies, most)).as(selfies).containsExactly(expected);
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "<pad>,<sos>,<eos>", "<sos>,<pad>,<eos>,<unk>", "<pad>,<sos>,<eos>,<unk>,[C],[C]", "<pad>,<sos>,<eos>,<unk>,C"})
  void refusesWhatIsNoVocabulary(String tokens) {
    assertThatThrownBy(() -> Vocabulary.of(List.of(tokens.split(",")))).isInstanceOf(IllegalArgumentException.class);
    assertThat(Vocabulary.of(vocabulary.tokens())).isEqualTo(vocabulary).hasSameHashCodeAs(vocabulary);
  }
}
