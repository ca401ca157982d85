// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.core.JsonProcessingException;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;

/**
 * How far a preparation has come. Everything before the place is in the runs and the counts; what was done after it is done again.
 *
 * @param settings what decides the result
 * @param inputs the files that are read
 * @param input number of the input to go on with; the number of inputs if all are read
 * @param line last line of it that was read
 * @param runs what was read, sorted
 * @param records molecules looked at, good and bad
 * @param desalted molecules that lost fragments
 * @param neutralised molecules that lost charges
 * @param rejected records not used, by the name of the reason
 * @param symbols the SELFIES symbols by the numbers that the runs have for them
 */
record PreparationState(
    @JsonProperty(value = "settings", required = true) Map<String, String> settings,
    @JsonProperty(value = "inputs", required = true) List<Input> inputs,
    @JsonProperty(value = "input", required = true) int input,
    @JsonProperty(value = "line", required = true) long line,
    @JsonProperty(value = "runs", required = true) List<SortedRuns.Run> runs,
    @JsonProperty(value = "records", required = true) long records,
    @JsonProperty(value = "desalted", required = true) long desalted,
    @JsonProperty(value = "neutralised", required = true) long neutralised,
    @JsonProperty(value = "rejected", required = true) Map<String, RejectionTally.Entry> rejected,
    @JsonProperty(value = "symbols", required = true) List<String> symbols) {
  static final String FILE = "state.json";

  /**
   * An input file as it was when the preparation began.
   *
   * @param path absolute
   * @param bytes its size
   * @param sha256 of its contents
   */
  record Input(
      @JsonProperty(value = "path", required = true) String path,
      @JsonProperty(value = "bytes", required = true) long bytes,
      @JsonProperty(value = "sha256", required = true) String sha256) {
    static Input of(Path file) {
      try (InputStream in = Files.newInputStream(file)) {
        MessageDigest digest = MessageDigest.getInstance("SHA-256");
        byte[] buffer = new byte[1 << 16];
        long bytes = 0;
        for (int got = in.read(buffer); got >= 0; got = in.read(buffer)) {
          digest.update(buffer, 0, got);
          bytes += got;
        }
        return new Input(file.toAbsolutePath().normalize().toString(), bytes, HexFormat.of().formatHex(digest.digest()));
      } catch (NoSuchFileException e) {
        throw new ChemDataException(file, "there is no such file", e);
      } catch (IOException e) {
        throw new ChemDataException(file, "cannot be read: " + e, e);
      } catch (NoSuchAlgorithmException e) {
        throw new IllegalStateException("every Java has SHA-256", e);
      }
    }
  }

  static PreparationState read(Path folder) {
    Path file = folder.resolve(FILE);
    try {
      return DatasetManifest.JSON.readValue(Files.readString(file), PreparationState.class);
    } catch (JsonProcessingException e) {
      throw new ChemDataException(file, "is damaged; prepare the molecules anew: " + e.getOriginalMessage(), e);
    } catch (IOException e) {
      throw new ChemDataException(file, "cannot be read: " + e, e);
    }
  }

  void write(Path folder) {
    try {
      WholeFiles.replace(folder.resolve(FILE), DatasetManifest.JSON.writeValueAsString(this).getBytes(StandardCharsets.UTF_8));
    } catch (IOException e) {
      throw new UncheckedIOException("cannot write " + folder.resolve(FILE) + ": " + e.getMessage(), e);
    }
  }
}
