// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import java.util.stream.Stream;

/**
 * The output folder of a run. Each checkpoint is a folder step-NNNNNNNN, written under another name, forced to the disk and
 * then renamed; the files "last" and "best" hold the name of a checkpoint and are replaced in one rename. Checkpoints that
 * neither names are deleted afterwards, so whatever happens an earlier one stays whole.
 */
public final class RunDirectory {
  /** Label of the newest checkpoint. */
  public static final String LAST = "last";

  /** Label of the checkpoint with the smallest validation loss. */
  public static final String BEST = "best";

  private static final String STEP_FOLDER = "step-\\d{8,}";
  private static final String TEMPORARY = ".saving";

  private final Path directory;

  private RunDirectory(Path directory) {
    this.directory = directory;
  }

  /**
   * Makes the folder if need be and checks that it can be written.
   *
   * @param directory the folder
   * @return the run's folder
   * @throws CheckpointException if it cannot be made or written
   */
  public static RunDirectory prepare(Path directory) {
    try {
      Files.createDirectories(directory);
      Path probe = Files.createTempFile(directory, ".probe", "");
      Files.delete(probe);
      return new RunDirectory(directory);
    } catch (IOException e) {
      throw new CheckpointException("cannot write to the output folder " + directory + ": " + reason(e), e);
    }
  }

  /**
   * Whether a folder holds checkpoints of a run.
   *
   * @param directory any path
   * @return true if it has a "last" checkpoint
   */
  public static boolean holdsRun(Path directory) {
    return Files.isRegularFile(directory.resolve(LAST));
  }

  /**
   * The checkpoint folder a user means.
   *
   * @param given a checkpoint folder, a run's folder, or its "last" or "best"
   * @param labels which checkpoint to take of a run's folder, the first that exists
   * @return a checkpoint folder
   * @throws CheckpointException if there is none
   */
  public static Path resolve(Path given, String... labels) {
    if (Files.exists(given.resolve(Checkpoint.MANIFEST))) {
      return given;
    }
    if (Files.isRegularFile(given)) {
      return labelled(given);
    }
    for (String label : labels) {
      if (Files.isRegularFile(given.resolve(label))) {
        return labelled(given.resolve(label));
      }
    }
    throw new CheckpointException(
        "no checkpoint at "
            + given
            + (Files.exists(given) ? ": it holds neither a manifest.json nor a file \"last\"" : ": no such folder"));
  }

  private static Path labelled(Path label) {
    try {
      String name = Files.size(label) < 256 ? Files.readString(label).strip() : "";
      if (!name.matches(STEP_FOLDER)) {
        throw new CheckpointException(label + " is damaged: it does not hold the name of a checkpoint");
      }
      return label.resolveSibling(name);
    } catch (IOException e) {
      throw new CheckpointException("cannot read " + label + ": " + reason(e), e);
    }
  }

  /** @return the folder */
  public Path directory() {
    return directory;
  }

  /**
   * Saves a checkpoint and points labels at it.
   *
   * @param step optimiser steps done
   * @param content what to save
   * @param labels {@link #LAST} or {@link #BEST} or both
   * @return the checkpoint's folder
   * @throws CheckpointException if it cannot be written; earlier checkpoints are then untouched
   */
  public Path save(long step, Checkpoint.Content content, List<String> labels) {
    Path target = directory.resolve(String.format(Locale.ROOT, "step-%08d", step));
    Path temporary = directory.resolve(TEMPORARY);
    try {
      if (!Files.exists(target)) {
        DurableFiles.deleteTree(temporary);
        Files.createDirectory(temporary);
        Checkpoint.write(temporary, step, content);
        DurableFiles.move(temporary, target);
      }
      for (String label : labels) {
        DurableFiles.replace(directory.resolve(label), (target.getFileName() + "\n").getBytes(StandardCharsets.UTF_8));
      }
      deleteUnlabelled();
      return target;
    } catch (IOException e) {
      throw failed(target, temporary, e);
    }
  }

  private CheckpointException failed(Path target, Path temporary, IOException e) {
    try {
      DurableFiles.deleteTree(temporary);
    } catch (IOException leftOver) {
      e.addSuppressed(leftOver);
    }
    StringBuilder message = new StringBuilder("cannot save the checkpoint " + target + ": " + reason(e));
    Path last = directory.resolve(LAST);
    if (Files.isRegularFile(last)) {
      message.append("; the earlier checkpoint ").append(labelled(last)).append(" is untouched");
    }
    return new CheckpointException(message.toString(), e);
  }

  private void deleteUnlabelled() throws IOException {
    Set<Path> wanted = new HashSet<>();
    for (String label : List.of(LAST, BEST)) {
      if (Files.isRegularFile(directory.resolve(label))) {
        wanted.add(labelled(directory.resolve(label)).getFileName());
      }
    }
    List<Path> unwanted = new ArrayList<>();
    try (Stream<Path> children = Files.list(directory)) {
      children
          .filter(child -> child.getFileName().toString().matches(STEP_FOLDER))
          .filter(child -> !wanted.contains(child.getFileName()))
          .forEach(unwanted::add);
    }
    for (Path child : unwanted) {
      DurableFiles.deleteTree(child);
    }
  }

  /** Deletes the checkpoints of an earlier run. */
  public void clear() {
    try {
      for (String label : List.of(LAST, BEST)) {
        Files.deleteIfExists(directory.resolve(label));
      }
      deleteUnlabelled();
    } catch (IOException e) {
      throw new CheckpointException("cannot remove the earlier run in " + directory + ": " + reason(e), e);
    }
  }

  private static String reason(IOException e) {
    if (e instanceof java.nio.file.AccessDeniedException) {
      return "permission denied";
    }
    if (e instanceof java.nio.file.FileAlreadyExistsException) {
      return "a file of that name is in the way";
    }
    if (e instanceof FileSystemException named && named.getReason() != null) {
      return named.getReason();
    }
    return String.valueOf(e.getMessage());
  }
}
