// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

/**
 * What a folder of prepared molecules holds, from its file dataset.json. It is written last: a folder without it is not prepared.
 *
 * @param format always {@link #FORMAT}
 * @param version always {@link #VERSION}
 * @param molecules of all splits together
 * @param splits by name
 * @param symbols how often each SELFIES symbol occurs in the training split, by falling frequency
 */
record DatasetManifest(
    @JsonProperty(value = "format", required = true) String format,
    @JsonProperty(value = "version", required = true) int version,
    @JsonProperty(value = "molecules", required = true) long molecules,
    @JsonProperty(value = "splits", required = true) Map<String, Split> splits,
    @JsonProperty(value = "symbols", required = true) Map<String, Long> symbols) {
  static final String FILE = "dataset.json";
  static final String FORMAT = "molfuse molecules";
  static final int VERSION = 1;

  static final ObjectMapper JSON =
      new ObjectMapper().enable(SerializationFeature.INDENT_OUTPUT).disable(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES);

  /**
   * One split.
   *
   * @param molecules how many
   * @param smiles name of its SMILES file
   * @param files its record files in their order
   */
  record Split(
      @JsonProperty(value = "molecules", required = true) long molecules,
      @JsonProperty(value = "smiles", required = true) String smiles,
      @JsonProperty(value = "files", required = true) List<RecordPart> files) {}

  /**
   * One record file.
   *
   * @param name its name in the folder
   * @param molecules how many
   * @param checksum of its header, eight hexadecimal digits
   */
  record RecordPart(
      @JsonProperty(value = "name", required = true) String name,
      @JsonProperty(value = "molecules", required = true) int molecules,
      @JsonProperty(value = "checksum", required = true) String checksum) {}

  static String hex(int checksum) {
    return String.format("%08x", checksum);
  }

  static DatasetManifest read(Path folder) {
    Path file = folder.resolve(FILE);
    try {
      DatasetManifest manifest = JSON.readValue(Files.readString(file), DatasetManifest.class);
      if (!FORMAT.equals(manifest.format)) {
        throw new ChemDataException(file, "does not describe prepared molecules", (Throwable) null);
      }
      if (manifest.version != VERSION) {
        throw new ChemDataException(
            file, "is of version " + manifest.version + ", but only version " + VERSION + " can be read", (Throwable) null);
      }
      return manifest;
    } catch (NoSuchFileException e) {
      throw new ChemDataException(folder, "holds no prepared molecules: there is no " + FILE, e);
    } catch (JsonProcessingException e) {
      throw new ChemDataException(file, "is damaged: " + e.getOriginalMessage(), e);
    } catch (IOException e) {
      throw new ChemDataException(file, "cannot be read: " + e, e);
    }
  }

  byte[] bytes() throws JsonProcessingException {
    return (JSON.writeValueAsString(this) + "\n").getBytes(StandardCharsets.UTF_8);
  }
}
