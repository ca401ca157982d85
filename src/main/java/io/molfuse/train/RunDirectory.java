// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.BasicFileAttributes;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Objects;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.regex.Pattern;
import java.util.stream.Stream;

/**
 * The output folder of a run. Each checkpoint is a folder step-NNNNNNNN, written under another name, forced to the disk and
 * then renamed; the files "last" and "best" hold the name of a checkpoint, "every" those of several, and are replaced in one rename.
 * Checkpoints that they named before and name no more are deleted afterwards, so whatever happens an earlier one stays whole. What a
 * killed process leaves is removed by the next save. Nothing else in the folder is touched.
 */
public final class RunDirectory implements AutoCloseable {
  /** Label of the newest checkpoint. */
  public static final String LAST = "last";

  /** Label of the checkpoint with the smallest validation loss. */
  public static final String BEST = "best";

  /** Label of checkpoints that stay when newer ones come: the latest few of those saved with it, oldest first. */
  public static final String EVERY = "every";

  private static final List<String> LABELS = List.of(LAST, BEST, EVERY);
  private static final String STEP_FOLDER = "step-\\d{8,}";
  private static final String TEMPORARY = ".saving";
  private static final String LOCK = ".lock";

  /** The folders that this process has. */
  private static final Set<Path> HELD = ConcurrentHashMap.newKeySet();

  /** A label of one checkpoint has 14 bytes. */
  private static final int MAX_LABEL = 1 << 20;

  /** Suffix of a checkpoint that makes way for a new one of the same step. */
  private static final String REPLACED = ".replaced";

  /** Names of the checkpoints that a save may leave without a label if it is killed. */
  private static final String PENDING = ".pending";

  private final Path directory;
  /** The folders that were made for it, innermost first. */
  private final List<Path> made;
  private int keptEvery = Integer.MAX_VALUE;
  private FileChannel lock;

  /** What of {@link #HELD} is this one's; null for nothing. */
  private Path held;
  private boolean replacesEarlier;

  private RunDirectory(Path directory, List<Path> made) {
    this.directory = directory;
    this.made = made;
  }

  /**
   * Makes the folder if need be and checks that it can be written. A folder that was made and has nothing in it when this is closed goes
   * again.
   *
   * @param directory the folder
   * @return the run's folder
   * @throws CheckpointException if it cannot be made or written
   */
  public static RunDirectory prepare(Path directory) {
    List<Path> missing = new ArrayList<>();
    for (Path folder = directory.toAbsolutePath(); folder != null && Files.notExists(folder); folder = folder.getParent()) {
      missing.add(folder);
    }
    try {
      Files.createDirectories(directory);
      Path probe = Files.createTempFile(directory, ".probe", "");
      Files.delete(probe);
      return new RunDirectory(directory, missing);
    } catch (IOException e) {
      throw new CheckpointException("cannot write to the output folder " + directory + ": " + reason(e), e);
    }
  }

  /**
   * Keeps other processes from running into this folder until it is closed or the process ends.
   *
   * @return false if another run has the folder
   */
  public boolean tryLock() {
    Path file = directory.resolve(LOCK);
    FileChannel channel = null;
    FileLock taken = null;
    Path mine = null;
    try {
      mine = directory.toRealPath();
      // The lock is the process's: closing any channel on the file would release it, so a second one must not even be opened.
      if (!HELD.add(mine)) {
        return false;
      }
      channel = FileChannel.open(file, StandardOpenOption.CREATE, StandardOpenOption.WRITE);
      Object opened = key(file);
      taken = channel.tryLock();
      if (taken != null && !Objects.equals(key(file), opened)) {
        // Whoever had the folder until now found nothing in it and took it away.
        taken = null;
      }
    } catch (NoSuchFileException e) {
      // The same, a moment earlier.
      taken = null;
    } catch (IOException e) {
      // A file system without locks cannot tell runs apart; that is no reason not to train.
      close(channel);
      held = mine;
      return true;
    }
    if (taken == null) {
      close(channel);
      if (mine != null) {
        HELD.remove(mine);
      }
      return false;
    }
    lock = channel;
    held = mine;
    return true;
  }

  /** Tells a file from another of the same name, without opening it; null where the file system cannot. */
  private static Object key(Path file) throws IOException {
    return Files.readAttributes(file, BasicFileAttributes.class).fileKey();
  }

  /** Lets other runs into the folder. */
  @Override
  public void close() {
    if (lock != null && !made.isEmpty() && isEmpty()) {
      // While the lock is held: afterwards it may be someone else's.
      for (Path mine : Stream.concat(Stream.of(directory.resolve(LOCK)), made.stream()).toList()) {
        try {
          Files.deleteIfExists(mine);
        } catch (IOException e) {
          // Someone else put something there; it stays.
          break;
        }
      }
    }
    close(lock);
    lock = null;
    if (held != null) {
      HELD.remove(held);
      held = null;
    }
  }

  private boolean isEmpty() {
    try (Stream<Path> files = Files.list(directory)) {
      return files.allMatch(file -> file.getFileName().toString().equals(LOCK));
    } catch (IOException e) {
      return false;
    }
  }

  private static void close(FileChannel channel) {
    if (channel != null) {
      try {
        channel.close();
      } catch (IOException e) {
        // Nothing was written to it, so nothing is lost.
        return;
      }
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
    List<Path> named = allLabelled(label);
    return named.get(named.size() - 1);
  }

  private static List<Path> allLabelled(Path label) {
    try {
      List<String> names = Files.size(label) < MAX_LABEL ? Files.readString(label).strip().lines().toList() : List.of();
      if (names.isEmpty() || !names.stream().allMatch(name -> name.matches(STEP_FOLDER))) {
        throw new CheckpointException(label + " is damaged: it does not hold the name of a checkpoint");
      }
      return names.stream().map(name -> folder(label.resolveSibling(name))).toList();
    } catch (IOException e) {
      throw new CheckpointException("cannot read " + label + ": " + reason(e), e);
    }
  }

  /** A save that was cut off between its two renames left the checkpoint under its other name. */
  private static Path folder(Path named) {
    Path replaced = named.resolveSibling(named.getFileName() + REPLACED);
    return !Files.exists(named) && Files.exists(replaced) ? replaced : named;
  }

  /** @return the folder */
  public Path directory() {
    return directory;
  }

  /** Lets the first save replace the run that the folder holds; until then that run stays whole. */
  public void replaceEarlier() {
    replacesEarlier = true;
  }

  /**
   * Limits the checkpoints with the label {@link #EVERY}; unless called, all of them stay.
   *
   * @param count the latest so many, at least 1
   */
  public void keepEvery(int count) {
    if (count < 1) {
      throw new IllegalArgumentException("count: expected at least 1, got " + count);
    }
    keptEvery = count;
  }

  /**
   * Saves a checkpoint and points labels at it.
   *
   * @param step optimiser steps done
   * @param content what to save
   * @param labels any of {@link #LAST}, {@link #BEST} and {@link #EVERY}
   * @return the checkpoint's folder
   * @throws CheckpointException if it cannot be written; earlier checkpoints are then untouched
   */
  public Path save(long step, Checkpoint.Content content, List<String> labels) {
    Path target = directory.resolve(String.format(Locale.ROOT, "step-%08d", step));
    Path replaced = target.resolveSibling(target.getFileName() + REPLACED);
    Path temporary = directory.resolve(TEMPORARY);
    try {
      removePending();
      DurableFiles.deleteTree(temporary);
      Files.createDirectory(temporary);
      Checkpoint.write(temporary, step, content);
      Set<Path> touched = labelled();
      touched.addAll(List.of(target, replaced));
      writeNames(PENDING, touched.stream().map(path -> path.getFileName().toString()).toList());
      // A folder of that name may be this run's, with other labels in its state, or what a run left that was killed.
      if (Files.exists(target)) {
        DurableFiles.deleteTree(replaced);
        DurableFiles.move(target, replaced);
      }
      DurableFiles.move(temporary, target);
      if (replacesEarlier) {
        for (String label : LABELS) {
          if (!labels.contains(label)) {
            Files.deleteIfExists(directory.resolve(label));
          }
        }
      }
      for (String label : labels) {
        writeNames(label, label.equals(EVERY) ? every(target) : List.of(target.getFileName().toString()));
      }
      replacesEarlier = false;
      removePending();
      return target;
    } catch (IOException e) {
      throw failed(target, temporary, e);
    }
  }

  /**
   * Points a label at a checkpoint that is there already. One that has no label then goes with the next save.
   *
   * @param label {@link #LAST} or {@link #BEST}
   * @param checkpoint its folder, in this one
   * @throws CheckpointException if the label cannot be written
   */
  public void point(String label, Path checkpoint) {
    try {
      removePending();
      writeNames(PENDING, labelled().stream().map(path -> path.getFileName().toString()).toList());
      writeNames(label, List.of(checkpoint.getFileName().toString()));
    } catch (IOException e) {
      throw new CheckpointException("cannot write " + directory.resolve(label) + ": " + reason(e), e);
    }
  }

  private void writeNames(String file, List<String> names) throws IOException {
    DurableFiles.replace(directory.resolve(file), (String.join("\n", names) + "\n").getBytes(StandardCharsets.UTF_8));
  }

  /** Deletes the checkpoints that a save, finished or killed, took the labels from or did not give one. */
  private void removePending() throws IOException {
    Path pending = directory.resolve(PENDING);
    if (!Files.isRegularFile(pending)) {
      return;
    }
    Set<Path> named = labelled();
    for (String name : Files.readAllLines(pending)) {
      if (name.matches(STEP_FOLDER + "(" + Pattern.quote(REPLACED) + ")?") && !named.contains(directory.resolve(name))) {
        DurableFiles.deleteTree(directory.resolve(name));
      }
    }
    Files.delete(pending);
  }

  /** The names that EVERY holds from now on. */
  private List<String> every(Path target) {
    List<String> names = new ArrayList<>();
    if (!replacesEarlier) {
      labelled(EVERY).forEach(path -> names.add(path.getFileName().toString().replace(REPLACED, "")));
    }
    names.remove(target.getFileName().toString());
    names.add(target.getFileName().toString());
    return names.subList(Math.max(0, names.size() - keptEvery), names.size());
  }

  private Set<Path> labelled() {
    Set<Path> named = new HashSet<>();
    LABELS.forEach(label -> named.addAll(labelled(label)));
    return named;
  }

  /** The checkpoints that a label names; a damaged one names none. */
  private List<Path> labelled(String label) {
    Path file = directory.resolve(label);
    try {
      return Files.isRegularFile(file) ? allLabelled(file) : List.of();
    } catch (CheckpointException e) {
      return List.of();
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
