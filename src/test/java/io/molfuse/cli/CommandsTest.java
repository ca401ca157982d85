// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import io.molfuse.models.TestMolecules;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Map;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

class CommandsTest {
  @Test
  void selfiesGoThereAndBack() {
    String smiles =
        TestMolecules.DRUGS.stream().map(line -> line.split(" ")[0]).collect(Collectors.joining("\n", "", "\n"));
    Program encoded = Program.withInput(smiles, "selfies", "--encode");
    assertThat(encoded.code()).as(encoded.err()).isZero();
    assertThat(encoded.out().lines()).hasSize(32).allMatch(line -> line.startsWith("["));
    Program decoded = Program.withInput(encoded.out(), "selfies", "--decode");
    assertThat(decoded.code()).as(decoded.err()).isZero();
    Program again = Program.withInput(decoded.out(), "selfies", "--encode");
    assertThat(Program.withInput(again.out(), "selfies", "--decode").out()).isEqualTo(decoded.out());
  }

  @Test
  void badLineKeepsTheOthersInPlace() {
    Program program = Program.withInput("CCO\nC1CC(\nCC\n", "selfies", "--encode");
    assertThat(program.code()).isEqualTo(1);
    assertThat(program.out()).isEqualTo("[C][C][O]\n\n[C][C]\n");
    assertThat(program.err()).startsWith("line 2: ").hasLineCount(1);
  }

  @Test
  void selfiesNeedsADirection() {
    assertThat(Program.run("selfies").code()).isEqualTo(2);
    assertThat(Program.run("selfies", "--encode", "--decode").code()).isEqualTo(2);
    assertThat(Program.withInput("", "selfies", "--decode").code()).isZero();
  }

  @Test
  void outputThatCannotBeWrittenIsAFailure() {
    InputStream lines = new ByteArrayInputStream("CCO\n".repeat(100_000).getBytes(StandardCharsets.US_ASCII));
    for (Object[] args : new Object[][] {{"info"}, {"info", "--json"}, {"selfies", "--encode"}, {"--version"}, {"train", "--help"}}) {
      Program program = Program.withStreams(lines, Program.closedAfter(5), args);
      assertThat(program.code()).as(Arrays.toString(args)).isEqualTo(1);
      assertThat(program.err()).isEqualTo("error: cannot write to standard output" + System.lineSeparator());
    }
    // Nobody reads: most of the input need not be translated any more.
    assertThat(lines).isNotEmpty();
  }

  @Test
  void shortageOfMemoryIsSaidInOneLine() {
    assertThat(failing(new OutOfMemoryError("Java heap space")))
        .hasLineCount(1)
        .contains("out of memory", "MOLFUSE_JAVA_OPTS=-Xmx", "Java heap space");
    assertThat(failing(new IllegalStateException("reading failed", new OutOfMemoryError("Java heap space"))))
        .hasLineCount(1)
        .contains("MOLFUSE_JAVA_OPTS=-Xmx");
    assertThat(failing(new RuntimeException("[enforce fail] can't allocate memory: you tried\nException raised from f\nframe #0: g")))
        .hasLineCount(1)
        .contains("out of memory: try a smaller --batch-size or --preset");
  }

  @Test
  void otherErrorsEndWithOneLineToo() {
    assertThat(failing(new StackOverflowError())).hasLineCount(1).contains("StackOverflowError");
    assertThat(failing(new RuntimeException("mat1 and mat2\nException raised from addmm\nframe #0: g")))
        .hasLineCount(1)
        .contains("mat1 and mat2");
  }

  private static String failing(Throwable failure) {
    InputStream in =
        new InputStream() {
          @Override
          public int read() {
            if (failure instanceof Error error) {
              throw error;
            }
            throw (RuntimeException) failure;
          }
        };
    Program program = Program.withStreams(in, new ByteArrayOutputStream(), "selfies", "--encode");
    assertThat(program.code()).isEqualTo(1);
    assertThat(program.out()).isEmpty();
    return program.err();
  }

  @Test
  void barShowsValidationsAboveItself() {
    ByteArrayOutputStream err = new ByteArrayOutputStream();
    Console console = new Console(InputStream.nullInputStream(), System.out, new PrintStream(err, true, StandardCharsets.UTF_8));
    assertThat(console.isTerminal()).isFalse();
    try (StepDisplay bar = StepDisplay.bar(console)) {
      bar.validated(12, Map.of("total_loss", 1.5, "token_accuracy", 0.75), true);
    }
    assertThat(err.toString(StandardCharsets.UTF_8))
        .contains("step 12: validation loss 1.5000, accuracy 0.7500 (best so far)");
  }

  @Test
  void theLauncherTellsOfATerminal() {
    Console console = new Console(System.in, System.out, System.err);
    String before = System.getProperty("molfuse.terminal");
    try {
      System.setProperty("molfuse.terminal", "true");
      assertThat(console.isTerminal()).isTrue();
      System.setProperty("molfuse.terminal", "false");
      assertThat(console.isTerminal()).isFalse();
    } finally {
      if (before == null) {
        System.clearProperty("molfuse.terminal");
      } else {
        System.setProperty("molfuse.terminal", before);
      }
    }
  }

  @Test
  void jsonHasNeitherInfinityNorNaN() {
    assertThat(JsonSteps.finite(Double.NaN)).isNull();
    assertThat(JsonSteps.finite(Double.POSITIVE_INFINITY)).isNull();
    assertThat(JsonSteps.finite(0.5)).isEqualTo(0.5);
  }

  @Test
  void infoIsOneJsonObject() throws JsonProcessingException {
    Program program = Program.run("info", "--json");
    assertThat(program.code()).as(program.err()).isZero();
    assertThat(program.json()).hasSize(1);
    JsonNode info = program.json().get(0);
    assertThat(info.path("molfuse").asText()).matches("\\d+\\.\\d+\\.\\d+.*");
    assertThat(info.path("libtorch").asText()).matches("\\d+\\.\\d+\\.\\d+.*");
    assertThat(info.has("cuda")).isTrue();
    assertThat(info.has("cudnn")).isTrue();
    assertThat(info.path("cpu_vector_level").asText()).isIn("baseline", "avx2", "avx512");
    assertThat(info.path("cpu_threads").asInt()).isPositive();
    assertThat(info.has("cuda_driver")).isTrue();
    assertThat(info.has("cuda_runtime")).isTrue();
    assertThat(info.path("gpus").isArray()).isTrue();
    for (JsonNode gpu : info.path("gpus")) {
      assertThat(gpu.path("name").asText()).isNotEmpty();
      assertThat(gpu.path("memory_bytes").asLong()).isPositive();
      assertThat(gpu.path("compute_capability").asText()).matches("\\d+\\.\\d+");
    }
    assertThat(info.path("attention_backend").asText()).isIn("auto", "own", "cudnn");
    assertThat(info.has("attention_cudnn")).isTrue();
    JsonNode backends = info.path("backends");
    assertThat(backends.path("cpu").path("usable").asBoolean()).isTrue();
    for (String name : new String[] {"cuda", "cudnn"}) {
      JsonNode backend = backends.path(name);
      assertThat(backend.path("usable").isBoolean()).isTrue();
      assertThat(backend.path("usable").asBoolean() || !backend.path("reason").asText().isBlank()).as(name).isTrue();
    }
  }

  @Test
  void infoForPeopleSaysTheSame() {
    Program program = Program.run("info");
    assertThat(program.code()).isZero();
    assertThat(program.out()).contains("molfuse", "libtorch", "cpu threads", "backend cuda");
    assertThat(program.out()).containsPattern("cuda driver +(none|\\d+\\.\\d+)");
    assertThat(program.out()).containsPattern("cuda runtime +(not in this build of molfuse|\\d+\\.\\d+)");
    assertThat(program.out()).doesNotContain("null");
  }

  @ParameterizedTest
  @ValueSource(strings = {"prepare", "train", "search", "generate", "evaluate", "selfies", "info"})
  void everyCommandHasHelp(String command) {
    Program program = Program.run(command, "--help");
    assertThat(program.code()).isZero();
    assertThat(program.out()).contains("Usage: molfuse " + command);
    assertThat(program.err()).isEmpty();
  }

  @Test
  void theProgramItselfHasHelpAndAVersion() {
    assertThat(Program.run("--help").out())
        .contains("prepare", "train", "search", "generate", "evaluate", "selfies", "info", "Exit codes");
    assertThat(Program.run("--version").out()).startsWith("molfuse ");
    Program none = Program.run();
    assertThat(none.code()).isEqualTo(2);
    assertThat(none.err()).contains("a command is needed");
    assertThat(Program.run("trian").err()).contains("trian");
  }

  @ParameterizedTest
  @EnumSource(Preset.Name.class)
  void everyPresetIsAValidConfiguration(Preset.Name name) {
    Configuration preset = Preset.load(name);
    assertThat(preset.model().decoder().maxLength()).isEqualTo(128);
    assertThat(preset.training().beta()).isEqualTo(1e-4);
  }

  @Test
  void fullSizeModelIsTheLargePreset() {
    Configuration preset = Preset.load(Preset.Name.LARGE);
    assertThat(preset.model().encoder().layers()).isEqualTo(10);
    assertThat(preset.model().encoder().width()).isEqualTo(2048);
    assertThat(preset.model().decoder().hidden()).isEqualTo(256);
    assertThat(preset.training().accumulation()).isEqualTo(4);
    assertThat(Preset.forData(49_999)).isEqualTo(Preset.Name.SMALL);
    assertThat(Preset.forData(50_000)).isEqualTo(Preset.Name.MEDIUM);
    assertThat(Preset.forData(500_001)).isEqualTo(Preset.Name.LARGE);
  }
}
