// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import io.molfuse.chem.MoleculePreparation;
import io.molfuse.chem.MoleculeRecords;
import io.molfuse.models.TestMolecules;
import io.molfuse.train.RunDirectory;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class PrepareCommandTest {
  @TempDir Path folder;

  private Path drugs() throws IOException {
    return Files.write(folder.resolve("drugs.smi"), TestMolecules.DRUGS);
  }

  @Test
  void preparesAFile() throws IOException {
    Path output = folder.resolve("out");
    Path table = Files.writeString(folder.resolve("more.csv"), "id,mol\n7,CCCCCCCCCCO\n8,C1CC\n9,[Na+].[Cl-]\n");
    Program program = Program.run("prepare", drugs(), table, "--output", output, "--column", "mol", "--name-column", "id", "--json");
    assertThat(program.code()).as(program.err()).isZero();
    JsonNode line = program.json().get(0);
    assertThat(line.path("event").asText()).isEqualTo("finished");
    assertThat(line.path("records").asInt()).isEqualTo(35);
    assertThat(line.path("kept").asInt()).isEqualTo(33);
    assertThat(line.path("preset").asText()).isEqualTo("small");
    assertThat(line.path("rejected").path("invalid SMILES").asInt()).isEqualTo(1);
    assertThat(program.err())
        .contains("33 of 35 records kept", "not kept: no organic fragment: 1", "more.csv:3: invalid SMILES", "report.html");
    assertThat(MoleculeRecords.isPrepared(output)).isTrue();
    assertThat(Files.readString(output.resolve("train.smi")) + Files.readString(output.resolve("val.smi"))
            + Files.readString(output.resolve("test.smi")))
        .contains("\taspirin\n", "\t7\n");
    Program again = Program.run("prepare", drugs(), "--output", output);
    assertThat(again.code()).isEqualTo(1);
    assertThat(again.err()).contains("holds prepared molecules").hasLineCount(1);
    Program fewer = Program.run("prepare", drugs(), "--output", output, "--overwrite", "--max-weight", "150", "--val", "0", "--test", "0");
    assertThat(fewer.code()).as(fewer.err()).isZero();
    assertThat(fewer.err()).contains("weight out of range", "val 0, test 0");
  }

  @Test
  void wrongUsageIsSaid() throws IOException {
    Path output = folder.resolve("out");
    assertThat(Program.run("prepare", "--output", output).code()).isEqualTo(2);
    assertThat(Program.run("prepare", drugs()).code()).isEqualTo(2);
    Program elements = Program.run("prepare", drugs(), "--output", output, "--elements", "C,Zz");
    assertThat(elements.code()).isEqualTo(2);
    assertThat(elements.err()).contains("Zz");
    assertThat(Program.run("prepare", drugs(), "--output", output, "--min-weight", "700").code()).isEqualTo(2);
    Program missing = Program.run("prepare", folder.resolve("none.smi"), "--output", output);
    assertThat(missing.code()).isEqualTo(1);
    assertThat(missing.err()).contains("none.smi", "no such file");
    try (RunDirectory other = RunDirectory.prepare(output)) {
      assertThat(other.tryLock()).isTrue();
      assertThat(Program.run("prepare", drugs(), "--output", output).err()).contains("in use by another run");
    }
  }

  @Test
  void aProcessThatIsKilledLeavesWorkToGoOnWith() throws Exception {
    Path input = folder.resolve("moses.smi.gz");
    try (InputStream in = MoleculeRecords.class.getResourceAsStream("moses-test-2k5.smi.gz")) {
      Files.copy(in, input);
    }
    Path output = folder.resolve("out");
    Process process =
        new ProcessBuilder(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-Xmx400m",
                "-cp",
                System.getProperty("java.class.path"),
                PrepareSlowly.class.getName(),
                input.toString(),
                output.toString())
            .redirectErrorStream(true)
            .redirectOutput(folder.resolve("log").toFile())
            .start();
    try {
      // Until it has written at least two runs, that is, is in the middle of its work.
      for (int wait = 0; wait < 600 && !Files.exists(output.resolve(".preparing/run-00001")); wait++) {
        assertThat(process.isAlive()).as(Files.readString(folder.resolve("log"))).isTrue();
        Thread.sleep(100);
      }
    } finally {
      process.destroyForcibly();
    }
    assertThat(process.waitFor(60, TimeUnit.SECONDS)).isTrue();
    assertThat(MoleculeRecords.isPrepared(output)).isFalse();
    Program resumed = Program.run("prepare", input, "--output", output, "--json");
    assertThat(resumed.code()).as(resumed.err()).isZero();
    assertThat(resumed.err()).contains("going on with what was begun");
    assertThat(resumed.json().get(0).path("kept").asInt()).isEqualTo(2500);
    Path whole = folder.resolve("whole");
    assertThat(Program.run("prepare", input, "--output", whole).code()).isZero();
    for (String name : List.of("train-00000.molrec", "val.smi", "dataset.json", "report.html")) {
      assertThat(output.resolve(name)).as(name).hasSameBinaryContentAs(whole.resolve(name));
    }
  }

  /** A preparation with little memory, which writes many runs and takes its time. */
  static final class PrepareSlowly {
    private PrepareSlowly() {}

    public static void main(String[] args) {
      MoleculePreparation.Options options = new MoleculePreparation.Options().threads(1).memory(100_000);
      new MoleculePreparation(List.of(Path.of(args[0])), Path.of(args[1]), options)
          .listener((stage, fraction, records, molecules) -> sleep())
          .run();
    }
  }

  private static void sleep() {
    try {
      Thread.sleep(300);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  @Test
  void showsWhatItDoes() {
    ByteArrayOutputStream err = new ByteArrayOutputStream();
    Console console = new Console(InputStream.nullInputStream(), System.out, new PrintStream(err, true, StandardCharsets.UTF_8));
    try (PrepareDisplay bar = PrepareDisplay.bar(console)) {
      bar.progress(MoleculePreparation.Stage.CHECK, 0, 0, 0);
      bar.progress(MoleculePreparation.Stage.READ, 0.5, 10, 9);
    }
    assertThat(err.toString(StandardCharsets.UTF_8)).contains("checking", "reading");
  }
}
