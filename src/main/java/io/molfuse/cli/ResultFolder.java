// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import io.molfuse.chem.MoleculeGrid;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/** A folder that results are written to. Files of the same names are replaced. */
final class ResultFolder {
  private static final ObjectMapper JSON = new ObjectMapper().enable(SerializationFeature.INDENT_OUTPUT);

  private final Path folder;

  private ResultFolder(Path folder) {
    this.folder = folder;
  }

  /** Makes the folder and tries it out. */
  static ResultFolder prepare(Path folder) {
    try {
      Files.createDirectories(folder);
      Files.delete(Files.createTempFile(folder, ".try", null));
      return new ResultFolder(folder);
    } catch (IOException e) {
      throw new FailureException("cannot write to the output folder " + folder + ": " + e);
    }
  }

  void text(String name, String text) {
    try {
      Files.writeString(folder.resolve(name), text);
    } catch (IOException e) {
      throw new FailureException("cannot write " + folder.resolve(name) + ": " + e);
    }
  }

  void csv(String name, List<String> header, List<? extends List<?>> rows) {
    StringBuilder text = new StringBuilder(Csv.line(header)).append('\n');
    for (List<?> row : rows) {
      text.append(Csv.line(row)).append('\n');
    }
    text(name, text.toString());
  }

  void json(String name, Object value) {
    try {
      text(name, JSON.writeValueAsString(value) + '\n');
    } catch (IOException e) {
      throw new IllegalStateException("cannot write as JSON: " + value, e);
    }
  }

  void grid(String name, List<String> smiles, List<String> captions, int columns) {
    MoleculeGrid.write(smiles, captions, columns, folder.resolve(name));
  }
}
