// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.zip.GZIPOutputStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class SmilesFileTest {
  @TempDir Path folder;

  private final BadRecordReport report = new BadRecordReport();

  private List<MoleculeRecord> read(Path file) {
    List<MoleculeRecord> records = new ArrayList<>();
    try (SmilesFile reader = SmilesFile.open(file, report)) {
      for (MoleculeRecord next = reader.next(); next != null; next = reader.next()) {
        records.add(next);
      }
    }
    return records;
  }

  static byte[] gzip(byte[] content) throws IOException {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    try (GZIPOutputStream out = new GZIPOutputStream(bytes)) {
      out.write(content);
    }
    return bytes.toByteArray();
  }

  @Test
  void readsSmilesAndNames() throws IOException {
    Path file = Files.writeString(folder.resolve("a.smi"), "# comment\n\nCCO\tethanol  95 %\r\n  C  \nCC methyl\nO");
    assertThat(read(file))
        .containsExactly(
            new MoleculeRecord("CCO", "ethanol  95 %", file, 3),
            new MoleculeRecord("C", "", file, 4),
            new MoleculeRecord("CC", "methyl", file, 5),
            new MoleculeRecord("O", "", file, 6));
    assertThat(report.total()).isZero();
  }

  @Test
  void recognisesGzipByItsContent() throws IOException {
    byte[] content = "\uFEFFCCO\nC\n".getBytes(StandardCharsets.UTF_8);
    Path named = Files.write(folder.resolve("a.smi.gz"), gzip(content));
    Path unnamed = Files.write(folder.resolve("a.smi"), gzip(content));
    Path plain = Files.write(folder.resolve("plain.gz"), content);
    for (Path file : List.of(named, unnamed, plain)) {
      assertThat(read(file)).extracting(MoleculeRecord::smiles).containsExactly("CCO", "C");
    }
  }

  @Test
  void countsLinesThatAreNoText() throws IOException {
    byte[] content = "C\nXX\nCC\n".getBytes(StandardCharsets.US_ASCII);
    content[2] = (byte) 0xFF;
    Path file = folder.resolve("a.smi");
    Files.write(file, content);
    assertThat(read(file)).extracting(MoleculeRecord::smiles).containsExactly("C", "CC");
    assertThat(report.count(BadRecordReport.Reason.UNREADABLE_LINE)).isEqualTo(1);
    assertThat(report.examples().get(0).line()).isEqualTo(2);

    Files.writeString(file, "C".repeat(SmilesFile.MAX_LINE_BYTES + 1) + "\nC\n");
    assertThat(read(file)).hasSize(1);
    assertThat(report.toString()).contains("2 records not used: unreadable line 2", "longer than");
  }

  @Test
  void anEmptyFileHasNoRecords() throws IOException {
    assertThat(read(Files.createFile(folder.resolve("empty.smi")))).isEmpty();
  }

  @Test
  void namesFilesThatCannotBeRead() throws IOException {
    assertThatThrownBy(() -> read(folder.resolve("none.smi")))
        .isInstanceOf(ChemDataException.class)
        .hasMessageContaining("none.smi")
        .hasMessageContaining("no such file");
    assertThatThrownBy(() -> read(folder)).isInstanceOf(ChemDataException.class).hasMessageContaining("folder");

    byte[] packed = gzip("CCO\n".repeat(100_000).getBytes(StandardCharsets.US_ASCII));
    Path cut = Files.write(folder.resolve("cut.smi.gz"), Arrays.copyOf(packed, packed.length / 2));
    assertThatThrownBy(() -> read(cut))
        .isInstanceOf(ChemDataException.class)
        .hasMessageContaining("cut.smi.gz")
        .hasMessageContaining("breaks off after line");
    packed[packed.length - 5] ^= 0x55;
    Path damaged = Files.write(folder.resolve("damaged.smi.gz"), packed);
    assertThatThrownBy(() -> read(damaged)).isInstanceOf(ChemDataException.class).hasMessageContaining("damaged");
    Path stub = Files.write(folder.resolve("stub.smi.gz"), new byte[] {0x1F, (byte) 0x8B});
    assertThatThrownBy(() -> read(stub)).isInstanceOf(ChemDataException.class).hasMessageContaining("stub.smi.gz");
  }
}
