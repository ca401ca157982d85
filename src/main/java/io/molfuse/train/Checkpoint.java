// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;
import org.bytedeco.pytorch.Tensor;

/**
 * A saved state: a folder of JSON documents and safetensors files, with a manifest that gives the format's version, each file's length
 * and SHA-256, and its own SHA-256. A file is checked against the manifest before it is used. Format 1 had no checksum of the manifest.
 */
public final class Checkpoint {
  static final String MANIFEST = "manifest.json";
  static final int FORMAT = 2;
  private static final String CHECKSUM = "checksum";
  private static final String TENSORS = ".safetensors";
  private static final ObjectMapper JSON = new ObjectMapper().enable(SerializationFeature.INDENT_OUTPUT);

  /**
   * What a checkpoint is made of.
   *
   * @param documents values to write as JSON, by name without extension
   * @param tensors tensors to write, by file name without extension
   * @param texts texts to write, by file name
   */
  public record Content(
      Map<String, Object> documents, Map<String, Map<String, Tensor>> tensors, Map<String, String> texts) {
    /**
     * Content without texts.
     *
     * @param documents values to write as JSON, by name without extension
     * @param tensors tensors to write, by file name without extension
     */
    public Content(Map<String, Object> documents, Map<String, Map<String, Tensor>> tensors) {
      this(documents, tensors, Map.of());
    }
  }

  record FileEntry(@JsonProperty("bytes") long bytes, @JsonProperty("sha256") String sha256) {}

  record Manifest(
      @JsonProperty("format") int format,
      @JsonProperty("step") long step,
      @JsonProperty("files") Map<String, FileEntry> files) {}

  private final Path directory;
  private final Manifest manifest;

  private Checkpoint(Path directory, Manifest manifest) {
    this.directory = directory;
    this.manifest = manifest;
  }

  /**
   * Opens a checkpoint folder.
   *
   * @param directory holds a manifest
   * @return the checkpoint; its other files are read when asked for
   * @throws CheckpointException if there is none, or the manifest is damaged
   */
  public static Checkpoint open(Path directory) {
    Path file = directory.resolve(MANIFEST);
    if (!Files.isDirectory(directory) || !Files.exists(file)) {
      throw new CheckpointException("no checkpoint at " + directory + ": there is no " + file);
    }
    try {
      return new Checkpoint(directory, manifest(file, JSON.readTree(Files.readAllBytes(file))));
    } catch (JsonProcessingException e) {
      throw new CheckpointException(file + " is damaged: it is not the manifest of a checkpoint", e);
    } catch (IOException e) {
      throw new CheckpointException("cannot read " + file + ": " + e.getMessage(), e);
    }
  }

  private static Manifest manifest(Path file, JsonNode root) throws JsonProcessingException {
    if (!(root instanceof ObjectNode fields) || !root.path("format").canConvertToInt() || root.path("format").asInt() < 1) {
      throw new CheckpointException(file + " is not the manifest of a checkpoint of molfuse: it has no format number");
    }
    // Before anything else, as the rest may have another form.
    int format = root.path("format").asInt();
    if (format > FORMAT) {
      throw new CheckpointException(
          file + " has format " + format + " of a newer version of molfuse; this version reads formats up to " + FORMAT);
    }
    JsonNode checksum = fields.remove(CHECKSUM);
    if (format > 1 && (checksum == null || !checksum.asText().equals(sha256(fields)))) {
      throw new CheckpointException(file + " is damaged: its checksum is not that of its content");
    }
    Manifest manifest = JSON.treeToValue(fields, Manifest.class);
    if (manifest.files() == null) {
      throw new CheckpointException(file + " is damaged: it lists no files");
    }
    return manifest;
  }

  /** @return the folder */
  public Path directory() {
    return directory;
  }

  /** @return optimiser steps done when it was saved */
  public long step() {
    return manifest.step();
  }

  /**
   * Checks the length and the checksum of every file.
   *
   * @throws CheckpointException if one is missing or damaged
   */
  public void verify() {
    manifest.files().keySet().forEach(this::verified);
  }

  /** @return the names of its files, with extension */
  public Set<String> files() {
    return Set.copyOf(manifest.files().keySet());
  }

  /**
   * Reads a JSON document.
   *
   * @param name without extension
   * @param type what to make of it
   * @param <T> that type
   * @return the value
   * @throws CheckpointException if the file is missing, damaged, or describes something else
   */
  public <T> T document(String name, Class<T> type) {
    Path file = verified(name + ".json");
    try {
      return JSON.readValue(Files.readAllBytes(file), type);
    } catch (IOException e) {
      throw new CheckpointException("cannot use " + file + ": " + firstLine(e), e);
    }
  }

  /**
   * Reads a text.
   *
   * @param name of the file
   * @return its content
   * @throws CheckpointException if the file is missing or damaged
   */
  public String text(String name) {
    Path file = verified(name);
    try {
      return Files.readString(file);
    } catch (IOException e) {
      throw new CheckpointException("cannot use " + file + ": " + firstLine(e), e);
    }
  }

  /**
   * The path of a JSON document, checked against the manifest.
   *
   * @param name without extension
   * @return the file
   * @throws CheckpointException if the file is missing or damaged
   */
  public Path documentFile(String name) {
    return verified(name + ".json");
  }

  /**
   * Reads tensors into existing ones.
   *
   * @param name of the file, without extension
   * @param tensors what to overwrite
   * @throws CheckpointException if the file is missing, damaged, or holds other tensors
   */
  public void tensors(String name, Map<String, Tensor> tensors) {
    Safetensors.readInto(verified(name + TENSORS), tensors);
  }

  /**
   * Reads all tensors of a file.
   *
   * @param name of the file, without extension
   * @return by name, on the CPU, in the caller's scope
   * @throws CheckpointException if the file is missing or damaged
   */
  public Map<String, Tensor> tensors(String name) {
    return Safetensors.read(verified(name + TENSORS));
  }

  /** Whether a file has these tensors, without reading their values or its checksum. */
  void requireTensors(String name, Map<String, Tensor> tensors) {
    Safetensors.require(directory.resolve(name + TENSORS), tensors);
  }

  private Path verified(String name) {
    Path file = directory.resolve(name);
    FileEntry entry = manifest.files().get(name);
    if (entry == null) {
      throw new CheckpointException(directory.resolve(MANIFEST) + " lists no file " + name);
    }
    try {
      if (!Files.exists(file)) {
        throw new CheckpointException("the checkpoint's file " + file + " is missing");
      }
      long bytes = Files.size(file);
      if (bytes != entry.bytes()) {
        throw new CheckpointException(
            String.format("%s is damaged: it has %d bytes, but %d were saved", file, bytes, entry.bytes()));
      }
      if (!sha256(file).equals(entry.sha256())) {
        throw new CheckpointException(file + " is damaged: its checksum is not the one saved with it");
      }
    } catch (IOException e) {
      throw new CheckpointException("cannot read " + file + ": " + e.getMessage(), e);
    }
    return file;
  }

  /** Writes all files of a checkpoint and then the manifest. */
  static void write(Path directory, long step, Content content) throws IOException {
    Map<String, FileEntry> files = new LinkedHashMap<>();
    for (Map.Entry<String, Object> document : content.documents().entrySet()) {
      String name = document.getKey() + ".json";
      byte[] text = (JSON.writeValueAsString(document.getValue()) + "\n").getBytes(StandardCharsets.UTF_8);
      DurableFiles.write(directory.resolve(name), text);
      files.put(name, entry(directory.resolve(name)));
    }
    for (Map.Entry<String, String> text : content.texts().entrySet()) {
      DurableFiles.write(directory.resolve(text.getKey()), text.getValue().getBytes(StandardCharsets.UTF_8));
      files.put(text.getKey(), entry(directory.resolve(text.getKey())));
    }
    for (Map.Entry<String, Map<String, Tensor>> tensors : content.tensors().entrySet()) {
      String name = tensors.getKey() + TENSORS;
      Safetensors.write(directory.resolve(name), tensors.getValue(), Map.of("format", "pt"));
      files.put(name, entry(directory.resolve(name)));
    }
    ObjectNode manifest = JSON.valueToTree(new Manifest(FORMAT, step, files));
    manifest.put(CHECKSUM, sha256(manifest));
    DurableFiles.write(directory.resolve(MANIFEST), (JSON.writeValueAsString(manifest) + "\n").getBytes(StandardCharsets.UTF_8));
    DurableFiles.force(directory);
  }

  private static FileEntry entry(Path file) throws IOException {
    return new FileEntry(Files.size(file), sha256(file));
  }

  /** Of the manifest without its checksum, in one line. */
  private static String sha256(ObjectNode manifest) {
    return HexFormat.of().formatHex(digest().digest(manifest.toString().getBytes(StandardCharsets.UTF_8)));
  }

  private static String sha256(Path file) throws IOException {
    try (InputStream in = Files.newInputStream(file)) {
      MessageDigest digest = digest();
      byte[] buffer = new byte[1 << 16];
      for (int count = in.read(buffer); count >= 0; count = in.read(buffer)) {
        digest.update(buffer, 0, count);
      }
      return HexFormat.of().formatHex(digest.digest());
    }
  }

  private static MessageDigest digest() {
    try {
      return MessageDigest.getInstance("SHA-256");
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException("every Java platform has SHA-256", e);
    }
  }

  private static String firstLine(Exception e) {
    return String.valueOf(e.getMessage()).lines().findFirst().orElse(e.getClass().getSimpleName());
  }
}
