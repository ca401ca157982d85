// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.molfuse.chem.BadRecordReport.Reason;
import io.molfuse.chem.MoleculeRecords.Split;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.StringReader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.stream.Stream;
import java.util.zip.GZIPInputStream;
import java.util.zip.GZIPOutputStream;
import javax.xml.parsers.DocumentBuilderFactory;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.w3c.dom.Document;
import org.xml.sax.InputSource;

class MoleculePreparationTest {
  private static List<String> moses;

  @TempDir Path folder;

  @BeforeAll
  static void readMolecules() throws IOException {
    try (InputStream in = new GZIPInputStream(MoleculePreparationTest.class.getResourceAsStream("moses-test-2k5.smi.gz"))) {
      moses = new String(in.readAllBytes(), StandardCharsets.UTF_8).lines().filter(line -> !line.startsWith("#")).limit(600).toList();
    }
  }

  private Path file(String name, String content) throws IOException {
    return Files.writeString(folder.resolve(name), content);
  }

  private Path molecules(int count) throws IOException {
    return file("molecules.smi", String.join("\n", moses.subList(0, count)) + "\n");
  }

  private static MoleculePreparation.Options options() {
    return new MoleculePreparation.Options().threads(2);
  }

  private PreparationReport prepare(Path output, MoleculePreparation.Options options, Path... inputs) {
    return new MoleculePreparation(List.of(inputs), output, options).run();
  }

  /** The files of a folder with their contents. */
  private static Map<String, String> contents(Path output) throws IOException {
    Map<String, String> contents = new TreeMap<>();
    try (Stream<Path> files = Files.list(output)) {
      for (Path file : files.toList()) {
        contents.put(file.getFileName().toString(), new String(Files.readAllBytes(file), StandardCharsets.ISO_8859_1));
      }
    }
    return contents;
  }

  private static List<String> smiles(Path output, Split split) throws IOException {
    return Files.readAllLines(output.resolve(split + ".smi")).stream().map(line -> line.split("\t")[0]).toList();
  }

  @Test
  void everyMoleculeIsInOneSplitAndInItsRecords() throws IOException {
    Path output = folder.resolve("out");
    PreparationReport report = prepare(output, options().fileMolecules(300), molecules(600));
    assertThat(report.records()).isEqualTo(600);
    assertThat(report.kept()).isEqualTo(600);
    assertThat(report.rejected()).isEmpty();
    Set<String> all = new HashSet<>();
    for (Split split : Split.values()) {
      List<String> smiles = smiles(output, split);
      assertThat((long) smiles.size()).isEqualTo(report.kept(split));
      all.addAll(smiles);
      MoleculeRecords records = MoleculeRecords.open(output, split, new MoleculeRecords.Options());
      assertThat(records.size()).isEqualTo(smiles.size());
      for (int i = 0; i < smiles.size(); i++) {
        assertThat(records.get(i).smiles()).isEqualTo(smiles.get(i));
      }
    }
    assertThat(all).hasSize(600).isEqualTo(new HashSet<>(moses.stream().map(line -> Chemistry.canonical(line.split("\\s")[0])).toList()));
    assertThat(report.kept(Split.TRAIN)).isBetween(450L, 510L);
    assertThat(report.kept(Split.VAL)).isBetween(35L, 85L);
    assertThat(output.resolve("train-00001.molrec")).exists();
    assertThat(output.resolve(".preparing")).doesNotExist();
  }

  @Test
  void splitsDependOnTheMoleculeOnly() throws IOException {
    Path all = folder.resolve("all");
    Path some = folder.resolve("some");
    prepare(all, options(), molecules(600));
    List<String> backwards = new ArrayList<>(moses.subList(100, 300));
    Collections.reverse(backwards);
    prepare(some, options(), file("b.smi", String.join("\n", backwards)));
    for (Split split : Split.values()) {
      assertThat(smiles(all, split)).containsSubsequence(smiles(some, split));
    }
  }

  @Test
  void neitherThreadsNorMemoryNorOrderOfCopiesMatter() throws IOException {
    Path input = file("copies.smi", String.join("\n", moses.subList(0, 300)) + "\nnonsense\n" + String.join("\n", moses.subList(50, 350)));
    Map<String, String> expected = null;
    for (int threads : new int[] {1, 3}) {
      for (long memory : new long[] {20_000, 1 << 20}) {
        Path output = folder.resolve("out" + threads + "-" + memory);
        PreparationReport report = prepare(output, options().threads(threads).memory(memory), input);
        assertThat(report.kept()).isEqualTo(350);
        assertThat(report.rejected()).containsEntry(Reason.DUPLICATE, 250L).containsEntry(Reason.INVALID_SMILES, 1L).hasSize(2);
        assertThat(report.examples(Reason.DUPLICATE)).hasSize(5);
        assertThat(report.examples(Reason.DUPLICATE).get(0).line()).as("the first copy").isEqualTo(302);
        assertThat(report.examples(Reason.DUPLICATE).get(0).detail()).endsWith("copies.smi:51");
        Map<String, String> contents = contents(output);
        expected = expected == null ? contents : expected;
        assertThat(contents).isEqualTo(expected);
      }
    }
  }

  @Test
  void moleculesWithOneHashAreNoCopies() throws IOException {
    MoleculePreparation.Options options = options().memory(20_000);
    options.hash = text -> text.length() % 3;
    Path input = file("c.smi", String.join("\n", moses.subList(0, 150)) + "\n" + String.join("\n", moses.subList(0, 150)));
    PreparationReport report = prepare(folder.resolve("out"), options.split(0.1, 0.1), input);
    assertThat(report.kept()).isEqualTo(150);
    assertThat(report.rejected()).containsOnly(Map.entry(Reason.DUPLICATE, 150L));
  }

  @Test
  void anotherWayOfWritingIsACopy() throws IOException {
    Path input = file("d.smi", "CC(=O)Oc1ccccc1C(=O)O aspirin\nO=C([O-])c1ccccc1OC(C)=O.[Na+] salt\nOC(=O)C1=CC=CC=C1OC(=O)C\n");
    PreparationReport report = prepare(folder.resolve("out"), options().split(0, 0), input);
    assertThat(report.kept()).isEqualTo(1);
    assertThat(report.desalted()).isEqualTo(1);
    assertThat(report.neutralised()).isEqualTo(1);
    assertThat(Files.readString(folder.resolve("out/train.smi"))).isEqualTo(Chemistry.canonical("CC(=O)Oc1ccccc1C(=O)O") + "\taspirin\n");
  }

  private static byte[] gzip(String text) throws IOException {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    try (GZIPOutputStream out = new GZIPOutputStream(bytes)) {
      out.write(text.getBytes(StandardCharsets.UTF_8));
    }
    return bytes.toByteArray();
  }

  @Test
  void badRecordsAreCountedWithTheirPlaceAndTheOthersUsed() throws IOException {
    String good = "CC(=O)Oc1ccccc1C(=O)O";
    String[] lines = {
      "CC(C)Cc1ccc(cc1)C(C)C(=O)O",
      "C".repeat(10 << 20),
      "[Xx]CCCCCCCC",
      "[Na+].[Cl-]",
      "*CCCCCCCCC",
      "CCO",
      "CCCCCCC[Si](C)(C)C",
      "C".repeat(130),
      "C(C)(C)(C)(C)CCCCCC",
      "c1ccccc",
      ".",
      good,
    };
    ByteArrayOutputStream content = new ByteArrayOutputStream();
    content.write(String.join("\n", lines).getBytes(StandardCharsets.UTF_8));
    content.write("\nCN1CCCC1c1cccnc1 Fl\u00fcssigkeit\n".getBytes(StandardCharsets.ISO_8859_1));
    Path mixed = Files.write(folder.resolve("mixed.smi"), content.toByteArray());
    Path utf16 = Files.write(folder.resolve("utf16.smi"), ("\uFEFF" + good + "\n" + good + "\n").getBytes(StandardCharsets.UTF_16LE));
    byte[] whole = gzip(String.join("\n", moses.subList(0, 200)) + "\n");
    Path cut = Files.write(folder.resolve("cut.smi.gz"), Arrays.copyOf(whole, whole.length / 2));
    byte[] broken = whole.clone();
    Arrays.fill(broken, 1000, 1100, (byte) 0x55);
    Path damaged = Files.write(folder.resolve("damaged.smi.gz"), broken);
    Path noGzip = Files.write(folder.resolve("start.smi.gz"), new byte[] {0x1F, (byte) 0x8B, 7, 7, 7});
    Path table = file("t.csv", "smiles,id\n,1\nCOc1ccc2cc(ccc2c1)C(C)C(=O)O,2\n");
    PreparationReport report =
        prepare(
            folder.resolve("out"), options().weight(100, 5000).maxLength(100).maxExamples(10), mixed, utf16, cut, damaged, noGzip, table);
    Map<Reason, List<String>> places = new HashMap<>();
    report.rejected().keySet().forEach(
        reason ->
            places.put(reason, report.examples(reason).stream().map(e -> e.file().getFileName() + ":" + e.line()).toList()));
    assertThat(places.get(Reason.UNREADABLE_LINE)).containsExactly("mixed.smi:2", "mixed.smi:13", "utf16.smi:1");
    assertThat(places.get(Reason.INVALID_SMILES))
        .contains("mixed.smi:3", "mixed.smi:10", "mixed.smi:11", "utf16.smi:2", "t.csv:2");
    assertThat(places.get(Reason.NO_ORGANIC_FRAGMENT)).containsExactly("mixed.smi:4");
    assertThat(places.get(Reason.WILDCARD_ATOM)).containsExactly("mixed.smi:5");
    assertThat(places.get(Reason.WEIGHT_OUT_OF_RANGE)).containsExactly("mixed.smi:6");
    assertThat(places.get(Reason.FORBIDDEN_ATOM)).containsExactly("mixed.smi:7");
    assertThat(places.get(Reason.TOO_MANY_TOKENS)).containsExactly("mixed.smi:8");
    assertThat(places.get(Reason.INVALID_VALENCE)).containsExactly("mixed.smi:9");
    assertThat(report.rejected()).containsEntry(Reason.DAMAGED_FILE, 3L);
    assertThat(report.examples(Reason.DAMAGED_FILE)).extracting(BadRecordReport.Example::file).containsExactly(cut, damaged, noGzip);
    assertThat(report.examples(Reason.DAMAGED_FILE).get(0).detail()).contains("breaks off after line");
    // What came before the damage was used, and so was what came after the file.
    assertThat(report.kept()).isGreaterThan(50);
    List<String> kept = new ArrayList<>();
    for (Split split : Split.values()) {
      kept.addAll(smiles(folder.resolve("out"), split));
    }
    assertThat(kept)
        .contains(
            Chemistry.canonical(good),
            Chemistry.canonical("COc1ccc2cc(ccc2c1)C(C)C(=O)O"),
            Chemistry.canonical(moses.get(0).split("\\s")[0]));
    long rejected = report.rejected().values().stream().mapToLong(Long::longValue).sum();
    assertThat(report.kept() + rejected).isEqualTo(report.records());
  }

  /** A machine that fails at the n-th word the preparation says. */
  private static MoleculePreparation.Listener failingAt(int calls) {
    int[] left = {calls};
    return (stage, fraction, records, molecules) -> {
      if (--left[0] == 0) {
        throw new IllegalStateException("power cut");
      }
    };
  }

  @Test
  void goesOnAfterAFailureAnywhere() throws IOException {
    Path first = molecules(600);
    Path second = file("second.smi", "bad line\n" + String.join("\n", moses.subList(0, 100)) + "\n");
    Path clean = folder.resolve("clean");
    prepare(clean, options(), first, second);
    // Before the third word the inputs are looked at, and nothing is begun.
    for (int calls = 3; ; calls++) {
      Path output = folder.resolve("out" + calls);
      MoleculePreparation preparation =
          new MoleculePreparation(List.of(first, second), output, options().memory(30_000)).listener(failingAt(calls));
      try {
        preparation.run();
        assertThat(calls).isGreaterThan(8);
        return;
      } catch (IllegalStateException e) {
        assertThat(e).hasMessage("power cut");
        assertThat(MoleculeRecords.isPrepared(output)).isFalse();
        assertThat(preparation.resumes()).isTrue();
        // Files that the state does not know of, as a kill leaves them.
        Files.writeString(output.resolve(".preparing/run-00077"), "half");
        Files.writeString(Files.createDirectories(output.resolve(".preparing/out")).resolve("train-00009.molrec"), "half");
        assertThat(prepare(output, options().memory(30_000), first, second).kept()).isEqualTo(600);
        assertThat(contents(output)).isEqualTo(contents(clean));
      }
    }
  }

  @Test
  void stopsAndGoesOn() throws IOException {
    Path input = molecules(600);
    Path clean = folder.resolve("clean");
    prepare(clean, options(), input);
    Path output = folder.resolve("out");
    MoleculePreparation preparation = new MoleculePreparation(List.of(input), output, options().threads(1));
    preparation.listener((stage, fraction, records, molecules) -> preparation.requestStop());
    assertThat(preparation.run()).isNull();
    assertThat(prepare(output, options(), input).kept()).isEqualTo(600);
    assertThat(contents(output)).isEqualTo(contents(clean));
  }

  @Test
  void changesOfTheInputAreNoticed() throws IOException {
    Path input = molecules(300);
    Path output = folder.resolve("out");
    MoleculePreparation.Options small = options().memory(20_000);
    assertThatThrownBy(() -> new MoleculePreparation(List.of(input), output, small).listener(failingAt(3)).run()).hasMessage("power cut");
    byte[] before = Files.readAllBytes(input);
    byte[] after = before.clone();
    after[0] = 'N';
    Files.write(input, after);
    assertThatThrownBy(() -> prepare(output, options(), input))
        .isInstanceOf(ChemDataException.class)
        .hasMessageContaining("molecules.smi")
        .hasMessageContaining("was changed since")
        .hasMessageContaining("other contents");
    Files.write(input, Arrays.copyOf(before, before.length - 1));
    assertThatThrownBy(() -> prepare(output, options(), input)).hasMessageContaining((before.length - 1) + " bytes instead of");
    Files.write(input, before);
    assertThatThrownBy(() -> prepare(output, options().maxLength(50), input)).hasMessageContaining("other settings");
    assertThatThrownBy(() -> prepare(output, options(), input, input)).hasMessageContaining("1 input files, not 2");
    Path other = file("other.smi", "CC\n");
    assertThatThrownBy(() -> prepare(output, options(), other)).hasMessageContaining("other.smi is given");
    assertThat(prepare(output, options().overwrite(true), other, input).kept()).isEqualTo(300);
  }

  @Test
  void aFileThatGrowsWhileItIsReadIsNoticed() throws IOException {
    Path input = molecules(300);
    MoleculePreparation preparation = new MoleculePreparation(List.of(input), folder.resolve("out"), options());
    preparation.listener(
        (stage, fraction, records, molecules) -> {
          if (stage == MoleculePreparation.Stage.READ) {
            try {
              Files.writeString(input, "CCCCCCCCCCC\n", StandardOpenOption.APPEND);
            } catch (IOException e) {
              throw new UncheckedIOException(e);
            }
          }
        });
    assertThatThrownBy(preparation::run).isInstanceOf(ChemDataException.class).hasMessageContaining("was changed since");
    assertThat(MoleculeRecords.isPrepared(folder.resolve("out"))).isFalse();
  }

  @Test
  void damagedWorkIsNotBelieved() throws IOException {
    Path input = molecules(300);
    Path output = folder.resolve("out");
    assertThatThrownBy(() -> new MoleculePreparation(List.of(input), output, options().memory(20_000)).listener(failingAt(4)).run())
        .hasMessage("power cut");
    Path run = output.resolve(".preparing/run-00000");
    byte[] bytes = Files.readAllBytes(run);
    bytes[bytes.length / 2] ^= 1;
    Files.write(run, bytes);
    assertThatThrownBy(() -> prepare(output, options(), input)).isInstanceOf(ChemDataException.class).hasMessageContaining("run-00000");
    Files.writeString(output.resolve(".preparing/state.json"), "{\"settings\": 1");
    assertThatThrownBy(() -> prepare(output, options(), input)).hasMessageContaining("state.json").hasMessageContaining("damaged");
    assertThat(MoleculeRecords.isPrepared(output)).isFalse();
  }

  @Test
  void anEarlierResultIsReplacedOnlyIfAsked() throws IOException {
    Path output = folder.resolve("out");
    prepare(output, options().fileMolecules(100), molecules(300));
    assertThat(output.resolve("train-00001.molrec")).exists();
    Path fewer = file("fewer.smi", String.join("\n", moses.subList(0, 50)));
    assertThatThrownBy(() -> prepare(output, options(), fewer)).hasMessageContaining("holds prepared molecules");
    prepare(output, options().overwrite(true), fewer);
    assertThat(output.resolve("train-00001.molrec")).doesNotExist();
    assertThat(MoleculeRecords.open(output, Split.TRAIN, new MoleculeRecords.Options()).size()).isLessThanOrEqualTo(50);
  }

  @Test
  void refusesToDoNothing() throws IOException {
    Path bad = file("bad.smi", "nonsense\nC1CC\n");
    Path output = folder.resolve("out");
    assertThatThrownBy(() -> prepare(output, options(), bad))
        .isInstanceOfSatisfying(ChemDataException.class, e -> assertThat(e.report().examples()).hasSize(2))
        .hasMessageContaining("none of 2 records");
    assertThat(MoleculeRecords.isPrepared(output)).isFalse();
    assertThatThrownBy(() -> prepare(output, options(), folder.resolve("none"))).hasMessageContaining("no such file");
    Path empty = Files.createDirectory(folder.resolve("empty"));
    assertThatThrownBy(() -> prepare(output, options(), empty)).hasMessageContaining("holds no .smi");
    assertThatThrownBy(() -> prepare(output, options(), file("t.csv", "a,b\n"))).hasMessageContaining("no column");
    assertThatThrownBy(() -> options().elements(List.of("Qq"))).hasMessageContaining("Qq");
    assertThatThrownBy(() -> options().weight(5, 4)).hasMessageContaining("weight");
    assertThatThrownBy(() -> options().split(0.5, 0.5)).hasMessageContaining("split");
  }

  @Test
  void aFolderStandsForItsFiles() throws IOException {
    Path inputs = Files.createDirectory(folder.resolve("in"));
    Files.writeString(inputs.resolve("b.smi"), moses.get(0) + "\n");
    Files.write(inputs.resolve("a.SMI.gz"), gzip(moses.get(1) + "\n"));
    Files.writeString(inputs.resolve("notes.txt"), moses.get(2) + "\n");
    PreparationReport report = prepare(folder.resolve("out"), options(), inputs);
    assertThat(report.kept()).isEqualTo(2);
    assertThat(report.inputs()).containsExactly(inputs.resolve("a.SMI.gz"), inputs.resolve("b.smi"));
  }

  @Test
  void reportsAsJsonAndAsAPage() throws Exception {
    Path output = folder.resolve("out");
    String nasty = "<script>alert(\"x\")</script>&";
    Path input = file("m.smi", String.join("\n", moses.subList(0, 200)) + "\n" + nasty + "\n");
    PreparationReport report = prepare(output, options().recommend(count -> count > 100 ? "small" : "tiny"), input);
    JsonNode json = new ObjectMapper().readTree(output.resolve("report.json").toFile());
    assertThat(json.path("kept").asLong()).isEqualTo(200);
    assertThat(json.path("recommended_preset").asText()).isEqualTo("small");
    assertThat(json.path("rejected").get(0).path("examples").get(0).path("line").asInt()).isEqualTo(201);
    for (String name : List.of("smiles_length", "weight", "heavy_atoms", "tokens")) {
      long sum = 0;
      for (JsonNode count : json.path(name).path("counts")) {
        sum += count.asLong();
      }
      assertThat(sum).as(name).isEqualTo(200);
    }
    long heavy = 0;
    for (Split split : Split.values()) {
      for (String smiles : smiles(output, split)) {
        heavy += new MoleculeParser().parse(smiles).heavyAtoms();
      }
    }
    assertThat(json.path("heavy_atoms").path("mean").asDouble()).isEqualTo(heavy / 200.0);
    long atoms = 0;
    for (JsonNode count : json.path("elements")) {
      atoms += count.asLong();
    }
    assertThat(atoms).isEqualTo(heavy);
    String html = Files.readString(output.resolve("report.html"));
    assertThat(html).isEqualTo(report.html()).doesNotContain("<script").doesNotContain("http:").doesNotContain("https:");
    // Well-formed but for what HTML leaves open, so that a parser of XML can count the charts.
    Document page =
        DocumentBuilderFactory.newInstance()
            .newDocumentBuilder()
            .parse(
                new InputSource(
                    new StringReader(
                        html.replaceFirst("<!DOCTYPE html>", "").replaceAll("<meta[^>]*>", "").replace("<br>", ""))));
    assertThat(page.getElementsByTagName("svg").getLength()).isEqualTo(6);
    assertThat(page.getElementsByTagName("rect").getLength()).isGreaterThan(50);
    assertThat(page.getDocumentElement().getTextContent()).contains(nasty).contains("200 of 201 records kept");
  }
}
