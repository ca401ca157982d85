// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.time.Duration;
import java.util.Map;
import java.util.function.UnaryOperator;
import org.junit.jupiter.api.Assertions;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** Input of any size and depth gets a result or a message, in time that grows with its length and not with the square of it. */
class SelfiesLimitsTest {
  private static final int HUGE = 10_000_000;
  private static final int MANY = 200_000;
  private static final int DEEP = 100_000;

  /** What takes quadratic time takes minutes at these lengths, what does not a second or two. */
  private static final Duration LIMIT = Duration.ofSeconds(40);

  private static final UnaryOperator<String> ENCODE = text -> Selfies.standard().encode(text, false);
  private static final UnaryOperator<String> DECODE = Selfies.standard()::decode;

  static Arguments[] faults() {
    return new Arguments[] {
      Arguments.of("unclosed bracket", ENCODE, "C".repeat(HUGE) + "[N", "bracket [ is not closed", HUGE),
      Arguments.of("long bracket atom", ENCODE, "C[" + "N".repeat(HUGE) + "]", "invalid atom '[NNN", 1),
      Arguments.of("unknown letter", ENCODE, "c1ccccc1".repeat(HUGE / 8) + "Q", "invalid atom 'Q'", HUGE),
      Arguments.of("unclosed branches", ENCODE, "C(".repeat(HUGE / 2), "branch ( is not closed", HUGE - 1),
      Arguments.of("open branches", ENCODE, "C(".repeat(DEEP) + "C", "branch ( is not closed", 2 * DEEP - 1),
      Arguments.of("branches too many closed", ENCODE, "C" + "(C)".repeat(DEEP) + ")", "branch ) was not opened", 3 * DEEP + 1),
      Arguments.of("ring left open", ENCODE, "C1CC1".repeat(MANY) + "C1", "ring bond 1 is not closed", 5 * MANY + 1),
      Arguments.of("unclosed symbol", DECODE, "[C]".repeat(HUGE / 3) + "[N", "bracket [ is not closed", HUGE / 3 * 3),
      Arguments.of("unknown symbol", DECODE, "[C]".repeat(MANY) + "[Foo]", "invalid symbol [Foo]", 3 * MANY),
      Arguments.of("long symbol", DECODE, "[C][" + "N".repeat(HUGE) + "]", "invalid symbol [NNN", 3),
      Arguments.of("no symbol", DECODE, ".".repeat(HUGE) + "[", "bracket [ is not closed", HUGE),
      Arguments.of("deep and broken", DECODE, "[C][#Branch3][P][P][P]".repeat(DEEP) + "[X]", "invalid symbol [X]", 22 * DEEP),
    };
  }

  @ParameterizedTest(name = "{0}")
  @MethodSource("faults")
  void namesTheFaultAndItsPlace(String name, UnaryOperator<String> translation, String text, String reason, int position) {
    Assertions.assertTimeoutPreemptively(
        LIMIT,
        () ->
            assertThatThrownBy(() -> translation.apply(text))
                .isInstanceOfSatisfying(
                    SelfiesException.class,
                    e -> {
                      assertThat(e.reason()).startsWith(reason);
                      assertThat(e.getMessage()).hasSizeLessThan(800);
                      assertThat(e.position()).isEqualTo(position);
                    }));
  }

  static Arguments[] sizes() {
    Selfies wide = Selfies.with(SelfiesConstraints.of(Map.of("?", 10_000_000, "C", 4)));
    UnaryOperator<String> bothWays = text -> wide.decode(wide.encode(text, false));
    return new Arguments[] {
      Arguments.of("chain", ENCODE, "C".repeat(HUGE / 10)),
      Arguments.of("aromatic chain", ENCODE, "c".repeat(2 * MANY)),
      Arguments.of("aromatic rings", ENCODE, "c1ccccc1".repeat(MANY)),
      Arguments.of("searches for paths", ENCODE, "c1cc2ccc3cccc4ccc(c1)c2c34.".repeat(MANY / 10) + "C"),
      Arguments.of("nested branches", ENCODE, "C(".repeat(DEEP) + "C" + ")C".repeat(DEEP)),
      Arguments.of("branches of one atom", bothWays, "[Fe]" + "(C)".repeat(MANY)),
      Arguments.of("ring bonds of one atom", ENCODE, "[Fe]" + "1(CC1)".repeat(MANY)),
      Arguments.of("ring bonds of one stereo centre", ENCODE, "[Fe@]" + "1(CC1)".repeat(MANY)),
      Arguments.of("nested symbols", DECODE, "[C][#Branch3][P][P][P]".repeat(DEEP)),
      Arguments.of("rings of symbols", DECODE, "[C][C][C][Ring1][Ring1]".repeat(MANY)),
      Arguments.of("fragments", DECODE, "[C].".repeat(MANY)),
    };
  }

  @ParameterizedTest(name = "{0}")
  @MethodSource("sizes")
  void takesWhatIsLargeOrDeep(String name, UnaryOperator<String> translation, String text) {
    Assertions.assertTimeoutPreemptively(LIMIT, () -> assertThat(translation.apply(text)).isNotEmpty());
  }

  static Arguments[] smiles() {
    return new Arguments[] {
      Arguments.of("nested branches", "C(".repeat(DEEP) + "C" + ")C".repeat(DEEP)),
      Arguments.of("open branches", "C(".repeat(DEEP) + "C"),
      Arguments.of("unclosed bracket", "C".repeat(HUGE) + "[N"),
    };
  }

  @ParameterizedTest(name = "{0}")
  @MethodSource("smiles")
  void soDoesTheCheckOfMolecules(String name, String text) {
    Assertions.assertTimeoutPreemptively(LIMIT, () -> assertThat(Chemistry.fault(text)).isNotNull());
  }
}
