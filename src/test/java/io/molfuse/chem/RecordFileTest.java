// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.FileTime;
import java.util.Arrays;
import java.util.List;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class RecordFileTest {
  private static final MoleculeDataset MOSES =
      MoleculeDataset.bundled("moses-test-2k5", new MoleculeDataset.Options().limit(600));

  @TempDir Path folder;

  private static String[] names() {
    return MOSES.vocabulary().tokens().toArray(String[]::new);
  }

  private static byte[] record(int entry) {
    int[] tokens = MOSES.tokens(entry);
    return RecordFormat.encode(MOSES.graph(entry), Arrays.copyOfRange(tokens, 1, tokens.length - 1), MOSES.smiles(entry));
  }

  private Path write() throws IOException {
    Path file = folder.resolve("a.molrec");
    try (RecordWriter writer = new RecordWriter(file)) {
      for (int entry = 0; entry < MOSES.size(); entry++) {
        writer.add(record(entry), names());
      }
      writer.finish();
    }
    return file;
  }

  private static StoredMolecule stored(RecordFile file, int record) {
    int[] tokenOf = file.symbols().stream().mapToInt(MOSES.vocabulary()::id).toArray();
    return new StoredMolecule(record, file.record(record), tokenOf);
  }

  @Test
  void givesBackWhatWasWritten() throws IOException {
    RecordFile file = new RecordFile(write());
    assertThat(file.records()).isEqualTo(600);
    assertThat(file.blocks()).isEqualTo(3);
    assertThat(file.recordsOf(2)).isEqualTo(600 - 512);
    for (int entry = 0; entry < 600; entry++) {
      StoredMolecule molecule = stored(file, entry);
      assertThat(molecule.smiles()).isEqualTo(MOSES.smiles(entry));
      assertThat(molecule.graph()).isEqualTo(MOSES.graph(entry));
      int[] tokens = MOSES.tokens(entry);
      assertThat(molecule.symbols(molecule.symbolCount())).isEqualTo(Arrays.copyOfRange(tokens, 1, tokens.length - 1));
    }
    assertThat(file.longest()).isEqualTo(MOSES.maxTokenCount() - 2);
  }

  @Test
  void holdsLargeMoleculesAndOddAtoms() throws IOException {
    // More than 256 nodes need wide sources; charges are signed, and radicals, isotopes and explicit hydrogens are atoms like others.
    String[] smiles = {"C".repeat(400), "[O-][N+](=O)c1ccccc1", "C[CH]C", "[2H]C([2H])O", "[Fe+3]", "[C-4]", "*C"};
    Path path = folder.resolve("odd.molrec");
    try (RecordWriter writer = new RecordWriter(path)) {
      for (String text : smiles) {
        MoleculeParser.Molecule molecule = new MoleculeParser().parse(text);
        assertThat(RecordFormat.fault(molecule.graph(), 1, molecule.canonical())).isNull();
        writer.add(RecordFormat.encode(molecule.graph(), new int[] {0}, molecule.canonical()), new String[] {"[C]"});
      }
      writer.finish();
    }
    RecordFile file = new RecordFile(path);
    for (int i = 0; i < smiles.length; i++) {
      assertThat(stored(file, i).graph()).as(smiles[i]).isEqualTo(new MoleculeParser().parse(smiles[i]).graph());
    }
  }

  @Test
  void whatDoesNotFitIsSaid() {
    MoleculeGraph graph = new MoleculeParser().parse("*" + "(C)".repeat(299) + "C").graph();
    assertThat(RecordFormat.fault(graph, 3, "C")).contains("neighbours");
    assertThat(RecordFormat.fault(new MoleculeParser().parse("C").graph(), 70_000, "C")).contains("70000 symbols");
  }

  private static void patch(Path file, long at, int... bytes) throws IOException {
    try (FileChannel channel = FileChannel.open(file, StandardOpenOption.WRITE)) {
      byte[] content = new byte[bytes.length];
      IntStream.range(0, bytes.length).forEach(i -> content[i] = (byte) bytes[i]);
      channel.write(ByteBuffer.wrap(content), at);
    }
  }

  private static void truncate(Path file, long size) throws IOException {
    try (FileChannel channel = FileChannel.open(file, StandardOpenOption.WRITE)) {
      channel.truncate(size);
    }
  }

  private static void refused(Path file, String... words) {
    assertThatThrownBy(() -> new RecordFile(file))
        .isInstanceOf(ChemDataException.class)
        .hasMessageStartingWith(file + ": ")
        .hasMessageContainingAll(words);
  }

  @Test
  void otherFilesAreRefused() throws IOException {
    refused(folder.resolve("none"), "no such file");
    refused(Files.writeString(folder.resolve("short"), "CCO\n"), "4 bytes");
    refused(Files.writeString(folder.resolve("text"), "CCO\n".repeat(100)), "no record file");
    Path file = write();
    patch(file, 8, 2);
    refused(file, "version 2", "only version 1", "prepare");
    file = write();
    patch(file, 17, 9);
    refused(file, "header", "checksum");
    file = write();
    truncate(file, Files.size(file) - 1);
    refused(file, "cut off");
    file = write();
    patch(file, Files.size(file) - 2, 'X');
    refused(file, "tables", "checksum");
    file = write();
    patch(file, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    refused(file, "not written to its end");
  }

  @Test
  void aWriterThatIsKilledLeavesNoRecordFile() throws IOException {
    Path path = folder.resolve("killed.molrec");
    try (RecordWriter writer = new RecordWriter(path)) {
      for (int entry = 0; entry < 300; entry++) {
        writer.add(record(entry), names());
      }
    }
    refused(path, "not written to its end");
  }

  @Test
  void damagedBlocksAreFoundWhenTheyAreTouched() throws IOException {
    Path path = write();
    patch(path, Files.size(path) / 3, 0xFF, 0xFF, 0xFF);
    RecordFile file = new RecordFile(path);
    List<Integer> bad =
        IntStream.range(0, 3).filter(block -> {
          try (FileChannel channel = file.channel()) {
            file.block(channel, block);
            return false;
          } catch (ChemDataException e) {
            assertThat(e).hasMessageContaining("records " + block * 256 + " to ").hasMessageContaining("checksum");
            assertThatThrownBy(() -> file.record(block * 256)).hasMessage(e.getMessage());
            return true;
          } catch (IOException e) {
            throw new UncheckedIOException(e);
          }
        }).boxed().toList();
    assertThat(bad).hasSize(1);
  }

  @Test
  void changesAreNoticed() throws IOException {
    Path path = write();
    RecordFile file = new RecordFile(path);
    file.checkUnchanged();
    Files.setLastModifiedTime(path, FileTime.fromMillis(1));
    assertThatThrownBy(file::checkUnchanged).isInstanceOf(ChemDataException.class).hasMessageContaining("changed while");
    RecordFile again = new RecordFile(path);
    assertThat(again.record(0)).isNotEmpty();
    truncate(path, 4096);
    assertThatThrownBy(again::checkUnchanged).hasMessageContaining("changed while");
    assertThatThrownBy(() -> again.record(599)).isInstanceOf(ChemDataException.class).hasMessageContaining("599");
    Files.delete(path);
    assertThatThrownBy(again::checkUnchanged).hasMessageContaining("deleted");
  }
}
