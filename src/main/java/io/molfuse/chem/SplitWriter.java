// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.io.BufferedWriter;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** Writes one split: a SMILES file, and record files of at most so many molecules. */
final class SplitWriter implements AutoCloseable {
  /** Mapped files are addressed by 31 bits; a record is below 2^20 bytes. */
  private static final long MAX_FILE_BYTES = 1L << 30;

  private final Path folder;
  private final String name;
  private final int fileMolecules;
  private final BufferedWriter smiles;
  private final List<DatasetManifest.RecordPart> parts = new ArrayList<>();
  private RecordWriter file;
  private long molecules;

  SplitWriter(Path folder, String name, int fileMolecules) throws IOException {
    this.folder = folder;
    this.name = name;
    this.fileMolecules = fileMolecules;
    smiles = Files.newBufferedWriter(folder.resolve(smilesName()), StandardCharsets.UTF_8);
  }

  private String smilesName() {
    return name + ".smi";
  }

  private String partName() {
    return String.format("%s-%05d.molrec", name, parts.size());
  }

  void add(String canonical, String title, byte[] record, String[] symbols) throws IOException {
    smiles.write(canonical);
    if (!title.isEmpty()) {
      smiles.write('\t');
      smiles.write(title);
    }
    smiles.write('\n');
    if (file == null) {
      file = new RecordWriter(folder.resolve(partName()));
    }
    file.add(record, symbols);
    molecules++;
    if (file.records() == fileMolecules || file.bytes() >= MAX_FILE_BYTES) {
      endFile();
    }
  }

  private void endFile() throws IOException {
    int records = file.records();
    int checksum = file.finish();
    file.close();
    file = null;
    parts.add(new DatasetManifest.RecordPart(partName(), records, DatasetManifest.hex(checksum)));
  }

  DatasetManifest.Split finish() throws IOException {
    if (file != null) {
      endFile();
    }
    smiles.close();
    return new DatasetManifest.Split(molecules, smilesName(), List.copyOf(parts));
  }

  @Override
  public void close() throws IOException {
    smiles.close();
    if (file != null) {
      file.close();
    }
  }
}
