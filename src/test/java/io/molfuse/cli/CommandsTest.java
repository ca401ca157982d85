// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import io.molfuse.models.TestMolecules;
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
    assertThat(info.path("gpus").isArray()).isTrue();
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
  }

  @ParameterizedTest
  @ValueSource(strings = {"train", "generate", "selfies", "info"})
  void everyCommandHasHelp(String command) {
    Program program = Program.run(command, "--help");
    assertThat(program.code()).isZero();
    assertThat(program.out()).contains("Usage: molfuse " + command);
    assertThat(program.err()).isEmpty();
  }

  @Test
  void theProgramItselfHasHelpAndAVersion() {
    assertThat(Program.run("--help").out()).contains("train", "generate", "selfies", "info", "Exit codes");
    assertThat(Program.run("--version").out()).startsWith("molfuse ");
    Program none = Program.run();
    assertThat(none.code()).isEqualTo(2);
    assertThat(none.err()).contains("a command is needed");
    assertThat(Program.run("trian").err()).contains("trian");
  }

  @ParameterizedTest
  @EnumSource(Preset.Name.class)
  void everyPresetIsAValidConfiguration(Preset.Name name) {
    Preset preset = Preset.load(name);
    assertThat(preset.model().decoder().maxLength()).isEqualTo(128);
    assertThat(preset.training().beta()).isEqualTo(1e-4);
  }

  @Test
  void fullSizeModelIsTheLargePreset() {
    Preset preset = Preset.load(Preset.Name.LARGE);
    assertThat(preset.model().encoder().layers()).isEqualTo(10);
    assertThat(preset.model().encoder().width()).isEqualTo(2048);
    assertThat(preset.model().decoder().hidden()).isEqualTo(256);
    assertThat(preset.training().accumulation()).isEqualTo(4);
    assertThat(Preset.forData(49_999)).isEqualTo(Preset.Name.SMALL);
    assertThat(Preset.forData(50_000)).isEqualTo(Preset.Name.MEDIUM);
    assertThat(Preset.forData(500_001)).isEqualTo(Preset.Name.LARGE);
  }
}
