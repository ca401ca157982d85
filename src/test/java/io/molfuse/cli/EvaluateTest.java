// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.molfuse.chem.Chemistry;
import io.molfuse.models.TestMolecules;
import io.molfuse.train.OneThread;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import javax.imageio.ImageIO;
import javax.xml.parsers.DocumentBuilderFactory;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;

/** generate and evaluate on a model that was trained for a moment. */
@ExtendWith(OneThread.class)
class EvaluateTest {
  private static final ObjectMapper JSON = new ObjectMapper();

  @TempDir static Path shared;
  @TempDir Path folder;
  private static Path run;
  private static Path drugs;

  @BeforeAll
  static void train() {
    run = shared.resolve("run");
    drugs = TestMolecules.file(shared, TestMolecules.DRUGS);
    Program program =
        Program.run(
            "train", "--data", drugs, "--preset", "tiny", "--device", "cpu", "--seed", 7, "--max-steps", 40, "--samples", 0,
            "--output", run);
    assertThat(program.code()).as(program.err()).isZero();
  }

  private static Program with(String command, Object... more) {
    List<Object> args = new ArrayList<>(List.of(command, "--checkpoint", run, "--device", "cpu"));
    args.addAll(Arrays.asList(more));
    return Program.run(args.toArray());
  }

  private static Program succeeding(String command, Object... more) {
    Program program = with(command, more);
    assertThat(program.code()).as(program.err()).isZero();
    return program;
  }

  private static void fails(int code, String message, String command, Object... more) {
    Program program = with(command, more);
    assertThat(program.err()).as("%s %s", command, Arrays.toString(more)).contains(message).doesNotContain("\tat ");
    assertThat(program.code()).isEqualTo(code);
    assertThat(program.out()).isEmpty();
  }

  private JsonNode json(String file) throws IOException {
    return JSON.readTree(Files.readString(folder.resolve(file)));
  }

  private static void isPicture(Path svg) throws Exception {
    DocumentBuilderFactory factory = DocumentBuilderFactory.newInstance();
    factory.setFeature("http://apache.org/xml/features/nonvalidating/load-external-dtd", false);
    assertThat(factory.newDocumentBuilder().parse(svg.toFile()).getDocumentElement().getTagName()).isEqualTo("svg");
  }

  @Test
  void formatsHoldTheSameMolecules() throws JsonProcessingException {
    List<String> smiles = succeeding("generate", "-n", 9, "--seed", 3).out().lines().toList();
    assertThat(smiles).hasSize(9);
    List<String> csv = succeeding("generate", "-n", 9, "--seed", 3, "--format", "csv").out().lines().toList();
    assertThat(csv.get(0)).isEqualTo("smiles,selfies");
    List<JsonNode> json = succeeding("generate", "-n", 9, "--seed", 3, "--format", "json").json();
    for (int i = 0; i < 9; i++) {
      assertThat(csv.get(i + 1)).startsWith(smiles.get(i) + ",");
      assertThat(json.get(i).path("smiles").asText()).isEqualTo(smiles.get(i));
    }
    assertThat(json.get(9).path("event").asText()).isEqualTo("finished");
    assertThat(succeeding("generate", "-n", 9, "--seed", 3, "--json").json()).isEqualTo(json);
  }

  @Test
  void beamsDependOnTheSeedOfTheLatentsOnly() {
    Program beam = succeeding("generate", "-n", 4, "--seed", 3, "--beam", 3);
    assertThat(beam.out().lines()).hasSize(4);
    assertThat(succeeding("generate", "-n", 4, "--seed", 3, "--beam", 3).out()).isEqualTo(beam.out());
    assertThat(succeeding("generate", "-n", 4, "--seed", 3, "--beam", 1).out())
        .isEqualTo(succeeding("generate", "-n", 4, "--seed", 3, "--temperature", 0).out());
  }

  @Test
  void interpolationEndsAtWhatTheEndsDecodeTo() {
    List<String> way =
        succeeding("generate", "--from", "CCO", "--to", "c1ccccc1", "--steps", 5).out().lines().toList();
    assertThat(way).hasSize(5);
    List<String> back =
        succeeding("generate", "--to", "CCO", "--from", "c1ccccc1", "--steps", 3, "--path", "linear").out().lines().toList();
    assertThat(back).hasSize(3);
    assertThat(way.get(0)).isEqualTo(back.get(2));
    assertThat(way.get(4)).isEqualTo(back.get(0));
  }

  @Test
  void neighboursOfTheSameSeedAreTheSame() {
    Program first = succeeding("generate", "--near", "CC(=O)Oc1ccccc1C(=O)O", "--radius", 0.5, "-n", 6, "--seed", 1);
    assertThat(first.out().lines()).hasSize(6);
    assertThat(succeeding("generate", "--near", "CC(=O)Oc1ccccc1C(=O)O", "--radius", 0.5, "-n", 6, "--seed", 1).out())
        .isEqualTo(first.out());
  }

  @Test
  void picturesShowTheMolecules() throws Exception {
    Path png = folder.resolve("some.PNG");
    succeeding("generate", "-n", 7, "--picture", png);
    assertThat(ImageIO.read(png.toFile()).getWidth()).isGreaterThan(600);
    Path svg = folder.resolve("some.svg");
    succeeding("generate", "-n", 7, "--picture", svg);
    isPicture(svg);
    fails(2, "--picture must end in .png or .svg", "generate", "--picture", folder.resolve("some.gif"));
    fails(1, "--picture: cannot write to", "generate", "--picture", folder.resolve("nowhere/some.svg"));
  }

  @Test
  void reconstructionCountsWhatItLists() throws Exception {
    Program program = succeeding("evaluate", "--mode", "reconstruction", "--data", drugs, "-n", 20, "--output", folder);
    assertThat(program.out()).contains("exact match", "token accuracy");
    JsonNode figures = json("reconstruction.json");
    assertThat(figures.path("molecules").asInt()).isEqualTo(20);
    List<String> rows = Files.readAllLines(folder.resolve("reconstruction.csv"));
    assertThat(rows).hasSize(21);
    long exact = rows.stream().skip(1).filter(row -> row.split(",")[3].equals("true")).count();
    long valid = rows.stream().skip(1).filter(row -> row.split(",")[2].equals("true")).count();
    assertThat(figures.path("exact_match").asDouble()).isEqualTo(exact / 20.0);
    assertThat(figures.path("validity").asDouble()).isEqualTo(valid / 20.0);
    assertThat(figures.path("token_accuracy").asDouble()).isBetween(0.01, 1.0);
    isPicture(folder.resolve("reconstruction.svg"));
    assertThat(succeeding("evaluate", "--mode", "reconstruction", "--data", drugs, "-n", 20, "--json").json().get(0)).isEqualTo(figures);
  }

  @Test
  void generationCountsWhatItLists() throws Exception {
    succeeding("evaluate", "--mode", "generation", "--data", drugs, "-n", 30, "--seed", 2, "--output", folder);
    JsonNode figures = json("generation.json");
    assertThat(figures.path("generated").asInt()).isEqualTo(30);
    List<String> rows = Files.readAllLines(folder.resolve("generation.csv")).subList(1, 31);
    List<String> valid =
        rows.stream().map(row -> row.split(",")).filter(row -> row[2].equals("true")).map(row -> row[0]).toList();
    assertThat(figures.path("validity").asDouble()).isEqualTo(valid.size() / 30.0);
    assertThat(valid).allMatch(smiles -> Chemistry.canonical(smiles).equals(smiles));
    assertThat(figures.path("uniqueness").asDouble()).isEqualTo((double) valid.stream().distinct().count() / valid.size());
    assertThat(figures.path("novelty").isNumber()).isTrue();
    assertThat(figures.path("weight_mean").asDouble()).isPositive();
    isPicture(folder.resolve("generation.svg"));
  }

  @Test
  void latentDescribesEveryDimension() throws Exception {
    succeeding("evaluate", "--mode", "latent", "--data", drugs, "--output", folder);
    JsonNode figures = json("latent.json");
    assertThat(figures.path("molecules").asInt()).isEqualTo(32);
    List<String> rows = Files.readAllLines(folder.resolve("latent.csv"));
    assertThat(rows).hasSize(1 + figures.path("dimensions").asInt());
    double kl = rows.stream().skip(1).mapToDouble(row -> Double.parseDouble(row.split(",")[4])).sum();
    assertThat(figures.path("kl").asDouble()).isCloseTo(kl, within(1e-3));
    assertThat(rows.stream().skip(1).filter(row -> row.endsWith("true")).count()).isEqualTo(figures.path("active_units").asInt());
    assertThat(Files.readString(folder.resolve("latent.svg")).split("<circle ")).hasSize(33);
    isPicture(folder.resolve("latent.svg"));
    assertThat(Files.readAllLines(folder.resolve("interpolation.csv"))).hasSize(33);
    isPicture(folder.resolve("interpolation.svg"));
  }

  @Test
  void mistakesGetAMessage() throws IOException {
    fails(2, "--from: ", "generate", "--from", "C1CC", "--to", "C");
    fails(2, "--to", "generate", "--from", "C");
    fails(2, "--steps must be at least 2, but is 1", "generate", "--from", "C", "--to", "CC", "--steps", 1);
    fails(2, "--near: ", "generate", "--near", "not a molecule");
    fails(2, "--radius must be above 0, but is 0.0", "generate", "--near", "C", "--radius", 0);
    fails(2, "--near", "generate", "--near", "C", "--from", "C", "--to", "CC");
    fails(2, "--beam must be at least 1", "generate", "--beam", 0);
    fails(2, "--beam must be 0 to 256", "generate", "--beam", 1000);
    fails(2, "--beam cannot be given with", "generate", "--beam", 2, "--top-k", 5);
    fails(2, "--format", "generate", "--format", "xml");
    fails(2, "--json cannot be given with --format csv", "generate", "--json", "--format", "csv");
    fails(2, "--mode", "evaluate");
    fails(2, "--mode", "evaluate", "--mode", "everything");
    fails(2, "-n must be at least 1", "evaluate", "--mode", "latent", "-n", 0);
    fails(1, "nothing.smi", "evaluate", "--mode", "latent", "--data", folder.resolve("nothing.smi"));
    Path file = Files.createFile(folder.resolve("file"));
    fails(1, "cannot write to the output folder", "evaluate", "--mode", "latent", "--data", drugs, "--output", file.resolve("out"));
    Program mistyped = Program.run("evaluate", "--checkpoint", shared.resolve("rnu"), "--mode", "latent");
    assertThat(mistyped.code()).isEqualTo(1);
    assertThat(mistyped.err()).contains("no checkpoint at");
  }

  @Test
  void dataOfOtherSymbolsAreToldApart() throws IOException {
    Path other = Files.write(folder.resolve("other.smi"), List.of("[Se]C[Se]", "[Te]CC"));
    fails(1, "vocabulary does not match the data", "evaluate", "--mode", "reconstruction", "--data", other);
    Path mixed = Files.write(folder.resolve("mixed.smi"), List.of("CCO", "[Te]CC", "not a molecule"));
    Program program = succeeding("evaluate", "--mode", "reconstruction", "--data", mixed, "--json");
    assertThat(program.err()).contains("1 of 2 molecules have symbols", "mixed.smi:3");
    assertThat(program.json().get(0).path("with_unknown_symbols").asInt()).isEqualTo(1);
  }

  @Test
  void aVocabularyThatIsNotTheModelsIsRefused() throws IOException {
    Path copy = folder.resolve("copy");
    Path checkpoint;
    try (var files = Files.list(run)) {
      checkpoint = files.filter(file -> file.getFileName().toString().startsWith("step-")).findFirst().orElseThrow();
    }
    Files.createDirectory(copy);
    try (var files = Files.list(checkpoint)) {
      for (Path file : files.toList()) {
        Files.copy(file, copy.resolve(file.getFileName()));
      }
    }
    Path vocabulary = copy.resolve("vocabulary.json");
    Files.writeString(vocabulary, Files.readString(vocabulary).replaceFirst("\"\\[C\\]\"", "\"[Te]\""));
    Program program = Program.run("generate", "--checkpoint", copy, "-n", 1);
    assertThat(program.code()).isEqualTo(1);
    assertThat(program.err()).contains("vocabulary.json").doesNotContain("\tat ");
  }
}
