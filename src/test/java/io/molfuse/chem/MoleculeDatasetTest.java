// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class MoleculeDatasetTest {
  private static final MoleculeDataset MOSES =
      MoleculeDataset.bundled("moses-test-2k5", new MoleculeDataset.Options());

  @TempDir Path folder;

  private MoleculeDataset load(String content, MoleculeDataset.Options options) throws IOException {
    return MoleculeDataset.load(Files.writeString(folder.resolve("a.smi"), content), options);
  }

  @Test
  void bundledMoleculesAreAllUsable() {
    assertThat(MOSES.size()).isEqualTo(2500);
    assertThat(MOSES.report().total()).isZero();
    assertThat(MOSES.vocabulary().tokens()).contains("[C]", "[=C]", "[Ring1]", "[Branch1]");
    assertThat(MOSES.memoryBytes() / MOSES.size()).isLessThan(500);
    assertThatThrownBy(() -> MoleculeDataset.bundled("none", new MoleculeDataset.Options())).hasMessageContaining("none");
  }

  @Test
  void bundledTrainingMoleculesAreAllThere() throws IOException {
    int lines = 0;
    try (SmilesFile file =
        SmilesFile.of(
            Path.of("moses-25k.smi.gz"),
            MoleculeDataset.class.getResourceAsStream("moses-25k.smi.gz"),
            new BadRecordReport())) {
      while (file.next() != null) {
        lines++;
      }
    }
    assertThat(lines).isEqualTo(25_000);
  }

  @Test
  void sequencesAreTheMolecules() {
    for (int entry = 0; entry < MOSES.size(); entry += 7) {
      String selfies = MOSES.vocabulary().decode(MOSES.tokens(entry));
      assertThat(Chemistry.canonical(Selfies.standard().decode(selfies))).isEqualTo(MOSES.smiles(entry));
      assertThat(MOSES.nodeCount(entry)).isEqualTo(new MoleculeParser().parse(MOSES.smiles(entry)).graph().nodeCount());
      assertThat(MOSES.tokens(entry)).hasSize(MOSES.tokenCount(entry)).startsWith(Vocabulary.SOS).endsWith(Vocabulary.EOS);
    }
  }

  @Test
  void numberOfThreadsDoesNotMatter() {
    MoleculeDataset one = MoleculeDataset.bundled("moses-test-2k5", new MoleculeDataset.Options().threads(1).limit(1200));
    MoleculeDataset four = MoleculeDataset.bundled("moses-test-2k5", new MoleculeDataset.Options().threads(4).limit(1200));
    assertThat(one.size()).isEqualTo(1200);
    assertThat(four.vocabulary()).isEqualTo(one.vocabulary());
    for (int entry = 0; entry < one.size(); entry++) {
      assertThat(four.smiles(entry)).isEqualTo(one.smiles(entry));
      assertThat(four.tokens(entry)).isEqualTo(one.tokens(entry));
      assertThat(four.graph(entry)).isEqualTo(one.graph(entry));
    }
  }

  @Test
  void countsWhatItDoesNotUse() throws IOException {
    String content = "CCO\nC1CC\nC(C)(C)(C)(C)C\n[H][H]\n*C\nOCC\nCCCCCCCCCC\n";
    MoleculeDataset data =
        load(content, new MoleculeDataset.Options().deduplicate(true).maxHeavyAtoms(9).maxExamples(3));
    assertThat(data.size()).isEqualTo(1);
    assertThat(data.smiles(0)).isEqualTo(Chemistry.canonical("CCO"));
    assertThat(data.report().counts())
        .containsEntry(BadRecordReport.Reason.INVALID_SMILES, 1L)
        .containsEntry(BadRecordReport.Reason.INVALID_VALENCE, 1L)
        .containsEntry(BadRecordReport.Reason.NO_HEAVY_ATOM, 1L)
        .containsEntry(BadRecordReport.Reason.NO_SELFIES, 1L)
        .containsEntry(BadRecordReport.Reason.DUPLICATE, 1L)
        .containsEntry(BadRecordReport.Reason.TOO_MANY_ATOMS, 1L);
    assertThat(data.report().total()).isEqualTo(6);
    assertThat(data.report().examples()).hasSize(3);
    assertThat(data.report().examples().get(0).toString()).contains("a.smi:2: invalid SMILES").contains("[C1CC]");
  }

  @Test
  void limitsAndFillsSequences() throws IOException {
    MoleculeDataset cut = load("CCCCCC\n", new MoleculeDataset.Options().maxLength(5));
    assertThat(cut.tokens(0)).containsExactly(1, 4, 4, 4, 2);
    assertThat(cut.maxTokenCount()).isEqualTo(5);
    assertThat(cut.maxLength()).isEqualTo(5);
    MoleculeDataset rejected = load("CCCCCC\nCC\n", new MoleculeDataset.Options().maxTokens(3));
    assertThat(rejected.size()).isEqualTo(1);
    assertThat(rejected.report().count(BadRecordReport.Reason.TOO_MANY_TOKENS)).isEqualTo(1);
    MoleculeDataset unknown = load("*C\nC\n", new MoleculeDataset.Options().requireSelfies(false));
    assertThat(unknown.tokens(0)).containsExactly(1, 3, 2);
    assertThat(unknown.collate(new int[] {0, 1}).tokens()).containsExactly(1, 3, 2, 1, 4, 2);
  }

  @Test
  void takesAVocabulary() throws IOException {
    Vocabulary given = Vocabulary.of(List.of("<pad>", "<sos>", "<eos>", "<unk>", "[O]", "[C]"));
    MoleculeDataset data = load("CO\nCN\n", new MoleculeDataset.Options().vocabulary(given));
    assertThat(data.vocabulary()).isSameAs(given);
    assertThat(data.tokens(0)).contains(4, 5);
    assertThat(data.tokens(1)).contains(5, Vocabulary.UNK);
  }

  @Test
  void readsSeveralFiles() throws IOException {
    Path first = Files.writeString(folder.resolve("1.smi"), "C\nCC\n");
    Path second = Files.writeString(folder.resolve("2.smi"), "CCC\nx\n");
    MoleculeDataset data = MoleculeDataset.load(List.of(first, second), new MoleculeDataset.Options());
    assertThat(data.entries()).hasSize(3);
    assertThat(data.smiles(2)).isEqualTo("CCC");
    assertThat(data.report().examples().get(0).file()).isEqualTo(second);
  }

  @Test
  void refusesFilesWithoutMolecules() throws IOException {
    assertThatThrownBy(() -> load("C1\nnonsense\n", new MoleculeDataset.Options()))
        .isInstanceOfSatisfying(ChemDataException.class, e -> assertThat(e.report().total()).isEqualTo(2))
        .hasMessageContaining("a.smi")
        .hasMessageContaining("invalid SMILES 2");
    assertThatThrownBy(() -> load("# nothing\n", new MoleculeDataset.Options())).hasMessageContaining("no records");
    assertThatThrownBy(() -> MoleculeDataset.load(List.of(), new MoleculeDataset.Options())).hasMessageContaining("files");
    assertThatThrownBy(() -> MoleculeDataset.load(folder.resolve("none.smi"), new MoleculeDataset.Options()))
        .isInstanceOf(ChemDataException.class);
    assertThatThrownBy(() -> new MoleculeDataset.Options().threads(0)).hasMessageContaining("threads");
  }

  @Test
  void collatesGraphs() {
    int[] entries = {5, 0, 17, 5};
    GraphBatch batch = MOSES.collate(entries);
    assertThat(batch.size()).isEqualTo(4);
    assertThat(batch.indices()).containsExactly(entries);
    assertThat(batch.features()).hasSize(batch.nodeCount() * MoleculeGraph.FEATURES);
    assertThat(batch.graphPtr()[4]).isEqualTo(batch.nodeCount());
    assertThat(batch.rowPtr()[batch.nodeCount()]).isEqualTo(batch.edgeCount());
    for (int b = 0; b < entries.length; b++) {
      MoleculeGraph graph = MOSES.graph(entries[b]);
      int node = batch.graphPtr()[b];
      int edge = batch.rowPtr()[node];
      assertThat(batch.graphPtr()[b + 1] - node).isEqualTo(graph.nodeCount());
      int from = node * MoleculeGraph.FEATURES;
      assertThat(Arrays.copyOfRange(batch.features(), from, from + graph.nodeCount() * MoleculeGraph.FEATURES))
          .isEqualTo(graph.features());
      int[] sources = Arrays.copyOfRange(batch.source(), edge, edge + graph.edgeCount());
      assertThat(IntStream.of(sources).map(s -> s - node).toArray()).isEqualTo(graph.source());
      int[] rows = Arrays.copyOfRange(batch.rowPtr(), node, node + graph.nodeCount() + 1);
      assertThat(IntStream.of(rows).map(r -> r - edge).toArray()).isEqualTo(graph.rowPtr());
      int[] tokens = MOSES.tokens(entries[b]);
      for (int t = 0; t < batch.maxTokens(); t++) {
        long expected = t < tokens.length ? tokens[t] : Vocabulary.PAD;
        assertThat(batch.tokens()[b * batch.maxTokens() + t]).isEqualTo(expected);
      }
    }
    assertThatThrownBy(() -> MOSES.collate(new int[0])).isInstanceOf(IllegalArgumentException.class);
    assertThatThrownBy(() -> MOSES.collate(new int[] {2500})).isInstanceOf(IndexOutOfBoundsException.class);
  }

  @Test
  void splitsTheSameEveryTime() {
    MoleculeDataset.Split byHash = MOSES.splitByHash(0.2);
    assertThat(byHash.validation().length).isBetween(400, 600);
    assertThat(IntStream.concat(IntStream.of(byHash.train()), IntStream.of(byHash.validation())).sorted().toArray())
        .isEqualTo(MOSES.entries());
    MoleculeDataset part = MoleculeDataset.bundled("moses-test-2k5", new MoleculeDataset.Options().limit(100));
    int[] expected = IntStream.of(byHash.validation()).filter(entry -> entry < 100).toArray();
    assertThat(part.splitByHash(0.2).validation()).isEqualTo(expected);
    assertThatThrownBy(() -> MOSES.splitByHash(1.5)).hasMessageContaining("validationFraction");
    assertThatThrownBy(() -> MOSES.splitByHash(Double.NaN)).hasMessageContaining("validationFraction");
  }

  @Test
  void oneHugeRecordDoesNotStopTheOthers() throws IOException {
    String content = "CCO\n" + "C".repeat(50_000) + "\n" + "CC\n";
    MoleculeDataset data = load(content, new MoleculeDataset.Options());
    assertThat(data.size()).isEqualTo(2);
    assertThat(data.report().count(BadRecordReport.Reason.TOO_MANY_ATOMS)).isEqualTo(1);
    assertThat(data.report().examples().get(0).line()).isEqualTo(2);
  }

  @Test
  void whatDoesNotFitTheArraysIsRefused() throws IOException {
    // The wildcard has no valence.
    String star = "*" + "(C)".repeat(299) + "C";
    MoleculeDataset data = load("CC\n" + star + "\n", new MoleculeDataset.Options().requireSelfies(false));
    assertThat(data.size()).isEqualTo(1);
    assertThat(data.report().toString()).contains("an atom with 300 neighbours, at most 255");
  }

  @Test
  void shortenedDataIsTheSameWithShorterSequences() {
    MoleculeDataset shorter = MOSES.shortened(20);
    assertThat(shorter.maxLength()).isEqualTo(20);
    assertThat(shorter.maxTokenCount()).isEqualTo(20);
    assertThat(shorter.tokens(3)).hasSize(20).startsWith(Arrays.copyOf(MOSES.tokens(3), 19)).endsWith(Vocabulary.EOS);
    assertThat(shorter.collate(new int[] {3, 4}).maxTokens()).isEqualTo(20);
    assertThat(MOSES.shortened(500)).isSameAs(MOSES);
    assertThatThrownBy(() -> MOSES.shortened(2)).hasMessageContaining("maxLength");
  }

  @Test
  void fingerprintTellsMoleculesAndTheirOrderApart() throws IOException {
    MoleculeDataset.Options options = new MoleculeDataset.Options();
    String first = load("CCO\nCC\n", options).fingerprint();
    assertThat(load("OCC ethanol\nCC\n", options).fingerprint()).isEqualTo(first).hasSize(16);
    assertThat(load("CC\nCCO\n", options).fingerprint()).isNotEqualTo(first);
    assertThat(load("CCO\nCN\n", options).fingerprint()).isNotEqualTo(first);
  }
}
