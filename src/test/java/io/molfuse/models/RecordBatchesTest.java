// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.molfuse.chem.BadRecordReport;
import io.molfuse.chem.ChemDataException;
import io.molfuse.chem.GraphBatch;
import io.molfuse.chem.MoleculeDataset;
import io.molfuse.chem.MoleculePreparation;
import io.molfuse.chem.MoleculeRecords;
import io.molfuse.chem.MoleculeRecords.Split;
import io.molfuse.chem.RecordStream;
import io.molfuse.chem.StoredMolecule;
import io.molfuse.chem.Vocabulary;
import io.molfuse.train.DataLoader;
import io.molfuse.train.DataLoaderException;
import io.molfuse.train.SampleStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.IntRange;
import net.jqwik.api.lifecycle.AfterContainer;
import net.jqwik.api.lifecycle.BeforeContainer;

class RecordBatchesTest {
  /** Molecules of a file: two whole blocks, and one of 88. */
  private static final int OF_FILE = 600;

  private static Path folder;
  private static Path prepared;

  @BeforeContainer
  static void prepare() throws IOException {
    folder = Files.createTempDirectory("records");
    Path input = folder.resolve("moses.smi.gz");
    try (InputStream in = MoleculeRecords.class.getResourceAsStream("moses-test-2k5.smi.gz")) {
      Files.copy(in, input);
    }
    prepared = folder.resolve("prepared");
    new MoleculePreparation(List.of(input), prepared, new MoleculePreparation.Options().fileMolecules(OF_FILE)).run();
  }

  @AfterContainer
  static void delete() throws IOException {
    try (Stream<Path> walk = Files.walk(folder)) {
      for (Path path : walk.sorted(Comparator.reverseOrder()).toList()) {
        Files.delete(path);
      }
    }
  }

  private static MoleculeRecords open(Path from, MoleculeRecords.Options options) {
    return MoleculeRecords.open(from, Split.TRAIN, options);
  }

  private static MoleculeRecords train() {
    return open(prepared, new MoleculeRecords.Options());
  }

  /** A copy that can be spoiled. */
  private static Path copy() throws IOException {
    Path copy = Files.createTempDirectory(folder, "copy");
    try (Stream<Path> files = Files.list(prepared)) {
      for (Path file : files.toList()) {
        Files.copy(file, copy.resolve(file.getFileName()));
      }
    }
    return copy;
  }

  private static void sameMolecules(GraphBatch made, GraphBatch expected) {
    assertThat(made.indices()).isEqualTo(expected.indices());
    assertThat(made.features()).isEqualTo(expected.features());
    assertThat(made.rowPtr()).isEqualTo(expected.rowPtr());
    assertThat(made.source()).isEqualTo(expected.source());
    assertThat(made.graphPtr()).isEqualTo(expected.graphPtr());
    assertThat(made.tokens()).isEqualTo(expected.tokens());
    assertThat(made.maxTokens()).isEqualTo(expected.maxTokens());
  }

  /** The indices of an epoch's batches, one behind the other. */
  private static List<Integer> epoch(DataLoader<GraphBatch> loader, long number) throws InterruptedException {
    List<Integer> seen = new ArrayList<>();
    try (DataLoader.Epoch<GraphBatch> epoch = loader.epoch(number)) {
      for (GraphBatch batch = epoch.next(); batch != null; batch = epoch.next()) {
        for (int index : batch.indices()) {
          seen.add(index);
        }
      }
    }
    return seen;
  }

  private static List<Integer> all(MoleculeRecords records) {
    return IntStream.range(0, (int) records.size()).boxed().toList();
  }

  @Property(tries = 25)
  void everyMoleculeOnceAnEpochFromTheStream(
      @ForAll @IntRange(min = 1, max = 5) int workers,
      @ForAll @IntRange(min = 1, max = 700) int batch,
      @ForAll @IntRange(min = 1, max = 3000) int buffer,
      @ForAll @IntRange(min = 1, max = 3) int openFiles,
      @ForAll long seed)
      throws InterruptedException {
    MoleculeRecords records = open(prepared, new MoleculeRecords.Options().openFiles(openFiles).verify(false));
    List<Integer> first;
    try (DataLoader<GraphBatch> loader = RecordBatches.streamingLoader(records, batch, buffer, seed).workers(workers).build()) {
      first = epoch(loader, 0);
      assertThat(first).containsExactlyInAnyOrderElementsOf(all(records));
      assertThat(epoch(loader, 1)).isNotEqualTo(first).containsExactlyInAnyOrderElementsOf(all(records));
    }
    try (DataLoader<GraphBatch> loader = RecordBatches.streamingLoader(records, batch, buffer, seed).workers(1).build()) {
      assertThat(epoch(loader, 0)).as("the order does not depend on the threads").isEqualTo(first);
    }
  }

  @Property(tries = 10)
  void everyMoleculeOnceAmongProcesses(@ForAll @IntRange(min = 1, max = 4) int worldSize, @ForAll long seed) throws InterruptedException {
    MoleculeRecords records = train();
    List<Integer> seen = new ArrayList<>();
    for (int rank = 0; rank < worldSize; rank++) {
      try (DataLoader<GraphBatch> loader =
          RecordBatches.streamingLoader(records, 64, 100, seed).shard(rank, worldSize).workers(2).build()) {
        seen.addAll(epoch(loader, 3));
      }
    }
    assertThat(seen).containsExactlyInAnyOrderElementsOf(all(records));
  }

  @Property(tries = 10)
  void everyMoleculeOnceAnEpochByNumber(
      @ForAll @IntRange(min = 1, max = 5) int workers, @ForAll @IntRange(min = 1, max = 700) int batch, @ForAll long seed)
      throws InterruptedException {
    MoleculeRecords records = open(prepared, new MoleculeRecords.Options().openFiles(1));
    try (DataLoader<GraphBatch> loader = RecordBatches.indexedLoader(records, batch, true, seed).workers(workers).build()) {
      List<Integer> first = epoch(loader, 0);
      assertThat(first).containsExactlyInAnyOrderElementsOf(all(records));
      assertThat(epoch(loader, 1)).isNotEqualTo(first).containsExactlyInAnyOrderElementsOf(all(records));
    }
  }

  @Property(tries = 40)
  void skippingIsReadingWithoutLooking(@ForAll long seed) throws Exception {
    MoleculeRecords records = train();
    List<Long> expected = new ArrayList<>();
    try (SampleStream<StoredMolecule> stream = RecordBatches.streaming(records, seed).open(1)) {
      for (StoredMolecule molecule = stream.next(); molecule != null; molecule = stream.next()) {
        expected.add(molecule.index());
      }
    }
    SplittableRandom random = new SplittableRandom(seed);
    try (SampleStream<StoredMolecule> stream = RecordBatches.streaming(records, seed).open(1)) {
      int at = 0;
      while (at < expected.size()) {
        int skipped = random.nextInt(3) == 0 ? random.nextInt(900) : random.nextInt(4);
        stream.skip(skipped);
        at += skipped;
        StoredMolecule molecule = stream.next();
        assertThat(molecule == null ? null : molecule.index()).isEqualTo(at < expected.size() ? expected.get(at) : null);
        at++;
      }
      stream.skip(5);
      assertThat(stream.next()).isNull();
    }
  }

  @Property(tries = 1)
  void aRunGoesOnWhereItStopped() throws InterruptedException {
    MoleculeRecords records = train();
    try (DataLoader<GraphBatch> loader = RecordBatches.streamingLoader(records, 50, 200, 7).workers(2).build()) {
      List<Integer> whole = epoch(loader, 2);
      List<Integer> rest = new ArrayList<>();
      try (DataLoader.Epoch<GraphBatch> epoch = loader.resume(new DataLoader.Position(2, 11))) {
        for (GraphBatch batch = epoch.next(); batch != null; batch = epoch.next()) {
          IntStream.of(batch.indices()).forEach(rest::add);
        }
      }
      assertThat(rest).isEqualTo(whole.subList(550, whole.size()));
    }
  }

  @Property(tries = 1)
  void allThreeWaysGiveTheSameMolecules() {
    MoleculeRecords records = open(prepared, new MoleculeRecords.Options().maxLength(30).maxVocab(12));
    MoleculeDataset memory = records.inMemory();
    assertThat((long) memory.size()).isEqualTo(records.size());
    assertThat(memory.vocabulary()).isEqualTo(records.vocabulary());
    assertThat(records.vocabulary().size()).isEqualTo(12);
    assertThat(memory.maxTokenCount()).isEqualTo(30).isEqualTo(records.maxTokenCount());
    int[] entries = {0, 599, 600, 1, (int) records.size() - 1, 600};
    List<StoredMolecule> chosen = IntStream.of(entries).mapToObj(records::get).toList();
    sameMolecules(records.collate(chosen), memory.collate(entries));
    try (RecordStream stream = records.stream()) {
      List<StoredMolecule> streamed = new ArrayList<>();
      for (StoredMolecule molecule = stream.next(); molecule != null; molecule = stream.next()) {
        streamed.add(molecule);
      }
      sameMolecules(records.collate(streamed), memory.collate(memory.entries()));
    }
  }

  @Property(tries = 1)
  void theTextFileGivesTheSameMoleculesAndVocabulary() {
    MoleculeDataset text = MoleculeDataset.load(prepared.resolve("train.smi"), new MoleculeDataset.Options());
    MoleculeDataset memory = train().inMemory();
    assertThat(text.size()).isEqualTo(memory.size());
    assertThat(text.vocabulary()).isEqualTo(memory.vocabulary());
    assertThat(text.fingerprint()).isEqualTo(memory.fingerprint());
    for (int entry = 0; entry < text.size(); entry += 3) {
      assertThat(memory.tokens(entry)).isEqualTo(text.tokens(entry));
      // The order of atoms is that of the input, not of the canonical SMILES.
      assertThat(memory.graph(entry).nodeCount()).isEqualTo(text.graph(entry).nodeCount());
      assertThat(memory.graph(entry).edgeCount()).isEqualTo(text.graph(entry).edgeCount());
    }
  }

  @Property(tries = 1)
  void takesAVocabulary() {
    Vocabulary given = Vocabulary.of(List.of("<pad>", "<sos>", "<eos>", "<unk>", "[=C]", "[C]"));
    MoleculeRecords records = MoleculeRecords.open(prepared, Split.VAL, new MoleculeRecords.Options().vocabulary(given));
    assertThat(records.vocabulary()).isSameAs(given);
    assertThat(records.tokens(records.get(0))).contains(5, Vocabulary.UNK).startsWith(Vocabulary.SOS).endsWith(Vocabulary.EOS);
    assertThatThrownBy(() -> records.get(records.size())).isInstanceOf(IndexOutOfBoundsException.class);
    assertThatThrownBy(() -> records.collate(List.of())).isInstanceOf(IllegalArgumentException.class);
  }

  private static void spoil(Path file, long at) throws IOException {
    try (FileChannel channel = FileChannel.open(file, StandardOpenOption.WRITE)) {
      channel.write(ByteBuffer.wrap(new byte[] {-1, -1, -1, -1}), at);
    }
  }

  @Property(tries = 1)
  void damageIsLeftOutAndCounted() throws Exception {
    Path copy = copy();
    long whole = train().size();
    String healthy = train().fingerprint();
    spoil(copy.resolve("train-00000.molrec"), 70_000);
    Path cut = copy.resolve("train-00001.molrec");
    try (FileChannel channel = FileChannel.open(cut, StandardOpenOption.WRITE)) {
      channel.truncate(Files.size(cut) - 10);
    }
    MoleculeRecords records = open(copy, new MoleculeRecords.Options());
    assertThat(records.report().count(BadRecordReport.Reason.DAMAGED_RECORD)).isEqualTo(256);
    assertThat(records.report().count(BadRecordReport.Reason.DAMAGED_FILE)).isEqualTo(1);
    assertThat(records.report().toString())
        .contains("train-00000.molrec:256", "records 256 to 511", "train-00001.molrec", "cut off", "600 molecules");
    long left = whole - OF_FILE - records.report().count(BadRecordReport.Reason.DAMAGED_RECORD);
    assertThat(records.size()).isEqualTo(left);
    assertThat(records.fingerprint()).isNotEqualTo(healthy);
    try (DataLoader<GraphBatch> loader = RecordBatches.streamingLoader(records, 64, 100, 1).workers(2).build();
        DataLoader<GraphBatch> indexed = RecordBatches.indexedLoader(records, 64, true, 1).workers(2).build()) {
      assertThat(epoch(loader, 0)).containsExactlyInAnyOrderElementsOf(all(records));
      assertThat(epoch(indexed, 0)).containsExactlyInAnyOrderElementsOf(all(records));
    }
    assertThat((long) records.inMemory().size()).isEqualTo(left);
    try (Stream<Path> files = Files.list(copy)) {
      for (Path file : files.filter(f -> f.toString().endsWith("molrec")).toList()) {
        spoil(file, 8);
      }
    }
    assertThatThrownBy(() -> open(copy, new MoleculeRecords.Options()))
        .isInstanceOfSatisfying(
            ChemDataException.class, e -> assertThat(e.report().toString()).contains("version").contains("only version 1"))
        .hasMessageContaining("no usable molecule");
  }

  @Property(tries = 1)
  void damageThatNobodyLookedForIsAnErrorWithItsPlace() throws IOException {
    Path copy = copy();
    spoil(copy.resolve("train-00000.molrec"), 70_000);
    MoleculeRecords records = open(copy, new MoleculeRecords.Options().verify(false));
    try (DataLoader<GraphBatch> loader = RecordBatches.streamingLoader(records, 64, 100, 1).workers(2).build()) {
      assertThatThrownBy(() -> epoch(loader, 0))
          .isInstanceOf(DataLoaderException.class)
          .rootCause()
          .isInstanceOf(ChemDataException.class)
          .hasMessageContaining("train-00000.molrec")
          .hasMessageContaining("records 256 to 511");
    }
  }

  @Property(tries = 1)
  void aFolderThatChangesDuringTrainingIsNoticed() throws IOException, InterruptedException {
    Path copy = copy();
    MoleculeRecords records = open(copy, new MoleculeRecords.Options().openFiles(1));
    try (DataLoader<GraphBatch> loader = RecordBatches.streamingLoader(records, 64, 100, 1).workers(2).build()) {
      assertThat(epoch(loader, 0)).hasSize((int) records.size());
      Files.copy(copy.resolve("train-00000.molrec"), copy.resolve("train-00001.molrec"), StandardCopyOption.REPLACE_EXISTING);
      assertThatThrownBy(() -> epoch(loader, 1))
          .isInstanceOf(DataLoaderException.class)
          .rootCause()
          .hasMessageContaining("train-00001.molrec")
          .hasMessageContaining("is not the file");
    }
    Files.delete(copy.resolve("train-00002.molrec"));
    assertThatThrownBy(() -> records.get(2 * OF_FILE)).isInstanceOf(ChemDataException.class).hasMessageContaining("no such file");
  }

  @Property(tries = 1)
  void otherFoldersAreRefused() throws IOException {
    assertThat(MoleculeRecords.isPrepared(prepared)).isTrue();
    assertThat(MoleculeRecords.isPrepared(folder)).isFalse();
    assertThatThrownBy(() -> open(folder, new MoleculeRecords.Options())).hasMessageContaining("holds no prepared molecules");
    Path copy = copy();
    Path manifest = copy.resolve("dataset.json");
    String text = Files.readString(manifest);
    Files.writeString(manifest, text.replace("\"version\" : 1", "\"version\" : 7"));
    assertThatThrownBy(() -> open(copy, new MoleculeRecords.Options())).hasMessageContaining("version 7");
    Files.writeString(manifest, text.substring(0, text.length() / 2));
    assertThatThrownBy(() -> open(copy, new MoleculeRecords.Options())).hasMessageContaining("damaged");
    Files.writeString(manifest, text.replace("molfuse molecules", "others"));
    assertThatThrownBy(() -> open(copy, new MoleculeRecords.Options())).hasMessageContaining("does not describe");
  }
}
