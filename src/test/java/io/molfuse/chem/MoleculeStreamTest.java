// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.List;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class MoleculeStreamTest {
  private static final List<String> LINES =
      List.of("CCO ethanol", "# none", "c1ccccc1", "no molecule", "CC(=O)O", "", "OCC again", "CCN", "C1CC1", "[Na+].[Cl-]", "CCCl");

  @TempDir Path folder;

  private Path file(List<String> lines) throws IOException {
    return Files.write(folder.resolve("some.smi"), lines);
  }

  private static BitSet all(MoleculeStream molecules) {
    BitSet entries = new BitSet();
    entries.set(0, molecules.size());
    return entries;
  }

  private static List<MoleculeStream.Entry> entries(MoleculeStream molecules, BitSet chosen) {
    List<MoleculeStream.Entry> found = new ArrayList<>();
    try (MoleculeStream.Reader reader = molecules.read(chosen)) {
      for (MoleculeStream.Entry entry = reader.next(); entry != null; entry = reader.next()) {
        found.add(entry);
      }
    }
    return found;
  }

  private static void requireEqual(GraphBatch found, GraphBatch expected) {
    assertThat(found.features()).isEqualTo(expected.features());
    assertThat(found.rowPtr()).isEqualTo(expected.rowPtr());
    assertThat(found.source()).isEqualTo(expected.source());
    assertThat(found.graphPtr()).isEqualTo(expected.graphPtr());
    assertThat(found.tokens()).isEqualTo(expected.tokens());
    assertThat(found.indices()).isEqualTo(expected.indices());
  }

  @Test
  void itHasTheMoleculesOfTheDataSet() throws IOException {
    for (boolean deduplicate : new boolean[] {false, true}) {
      Path file = file(LINES);
      MoleculeDataset dataset = MoleculeDataset.load(file, new MoleculeDataset.Options().deduplicate(deduplicate));
      MoleculeStream stream = MoleculeStream.open(file, new MoleculeDataset.Options().deduplicate(deduplicate));
      assertThat(stream.size()).isEqualTo(dataset.size()).isPositive();
      assertThat(stream.vocabulary()).isEqualTo(dataset.vocabulary());
      assertThat(stream.fingerprint()).isEqualTo(dataset.fingerprint());
      assertThat(stream.report().total()).isEqualTo(dataset.report().total()).isPositive();
      List<MoleculeStream.Entry> entries = entries(stream, all(stream));
      requireEqual(stream.collate(entries), dataset.collate(dataset.entries()));
      // Cut sequences, too.
      requireEqual(stream.shortened(4).collate(entries), dataset.shortened(4).collate(dataset.entries()));
      requireEqual(stream.load(all(stream)).collate(dataset.entries()), dataset.collate(dataset.entries()));
    }
  }

  @Test
  void partsAreThoseOfTheDataSet() {
    MoleculeDataset.Options options = new MoleculeDataset.Options().limit(300);
    MoleculeDataset dataset = MoleculeDataset.bundled("moses-test-2k5", options);
    MoleculeStream stream = MoleculeStream.bundled("moses-test-2k5", options);
    MoleculeDataset.Split split = dataset.splitByHash(0.2);
    BitSet validation = stream.validationByHash(0.2);
    assertThat(validation.stream().toArray()).isEqualTo(split.validation());
    List<MoleculeStream.Entry> entries = entries(stream, validation);
    requireEqual(stream.collate(entries), dataset.collate(split.validation()));
    KnownMolecules known = stream.known(validation);
    assertThat(known.size()).isEqualTo(KnownMolecules.of(dataset, split.validation()).size());
    IntStream.of(split.validation()).forEach(entry -> assertThat(known.contains(dataset.smiles(entry))).isTrue());
    assertThat(known.contains(dataset.smiles(split.train()[0]))).isFalse();
  }

  @Test
  void aFileThatChangesIsNoticed() throws IOException {
    MoleculeStream stream = MoleculeStream.open(file(LINES), new MoleculeDataset.Options());
    List<String> other = new ArrayList<>(LINES);
    other.set(4, "CC(=O)N");
    Path file = file(other);
    List<MoleculeStream.Entry> entries = entries(stream, all(stream));
    assertThatThrownBy(() -> stream.collate(entries))
        .isInstanceOf(ChemDataException.class)
        .hasMessage(file + ": has changed: line 5 is not what it was when it was first read");
    file(LINES.subList(0, 5));
    assertThatThrownBy(() -> entries(stream, all(stream)))
        .isInstanceOf(ChemDataException.class)
        .hasMessage(file + ": has changed: there are fewer records than when it was first read");
  }
}
