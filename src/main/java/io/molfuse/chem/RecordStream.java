// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.util.SplittableRandom;

/**
 * The molecules of {@link MoleculeRecords} one after the other, each once. Holds one block of 256 records and the tables of one file,
 * whatever the size of the data. Not thread-safe.
 */
public final class RecordStream implements AutoCloseable {
  private final MoleculeRecords records;
  private final int[] fileOrder;
  private final long seed;
  private final boolean shuffled;

  private int nextFile;
  private MoleculeRecords.Opened opened;
  private FileChannel channel;
  private int[] blockOrder = new int[0];
  private int nextBlock;
  private ByteBuffer block;
  private int left;
  private long index;

  RecordStream(MoleculeRecords records, boolean shuffled, long seed) {
    this.records = records;
    this.shuffled = shuffled;
    this.seed = seed;
    fileOrder = new int[records.files()];
    for (int i = 0; i < fileOrder.length; i++) {
      fileOrder[i] = i;
    }
    if (shuffled) {
      shuffle(fileOrder, new SplittableRandom(Hashes.mix(seed)));
    }
  }

  private static void shuffle(int[] values, SplittableRandom random) {
    for (int i = values.length - 1; i > 0; i--) {
      int other = random.nextInt(i + 1);
      int value = values[i];
      values[i] = values[other];
      values[other] = value;
    }
  }

  /**
   * Reads the next molecule.
   *
   * @return the molecule; null at the end
   * @throws ChemDataException with file and record, if the file was changed or damaged since it was opened
   */
  public StoredMolecule next() {
    while (left == 0) {
      if (!toBlock(0)) {
        return null;
      }
    }
    byte[] record = new byte[RecordFormat.length(block, block.position())];
    block.get(record);
    left--;
    return new StoredMolecule(index++, record, opened.tokenOf());
  }

  /**
   * Leaves out molecules; those of whole blocks and files are not read.
   *
   * @param molecules at least 0
   * @throws ChemDataException as {@link #next}
   */
  public void skip(long molecules) {
    long rest = molecules;
    while (rest > 0) {
      if (left == 0) {
        long jumped = jump(rest);
        rest -= jumped;
        if (jumped == 0 && !toBlock(rest)) {
          return;
        }
        continue;
      }
      block.position(block.position() + RecordFormat.length(block, block.position()));
      left--;
      index++;
      rest--;
    }
  }

  /** Passes over the next file or block, if it has no more molecules than that; gives how many it had. */
  private long jump(long most) {
    if (nextBlock < blockOrder.length) {
      int size = opened.file().recordsOf(blockOrder[nextBlock]);
      nextBlock += size <= most ? 1 : 0;
      return size <= most ? size : 0;
    }
    if (nextFile < fileOrder.length) {
      long size = records.recordsOf(fileOrder[nextFile]);
      nextFile += size <= most ? 1 : 0;
      return size <= most ? size : 0;
    }
    return 0;
  }

  /** Reads the next block; with a number to skip, it may only open the next file. False at the end. */
  private boolean toBlock(long skipping) {
    if (nextBlock == blockOrder.length) {
      if (nextFile == fileOrder.length) {
        return false;
      }
      openFile(fileOrder[nextFile++]);
      if (skipping > 0 || blockOrder.length == 0) {
        return true;
      }
    }
    int number = blockOrder[nextBlock++];
    block = opened.file().block(channel, number);
    left = opened.file().recordsOf(number);
    index = records.index(opened.number(), number);
    return true;
  }

  private void openFile(int number) {
    close();
    opened = records.open(number);
    channel = opened.file().channel();
    blockOrder = records.blocks(number);
    nextBlock = 0;
    if (shuffled) {
      shuffle(blockOrder, new SplittableRandom(Hashes.mix(seed + number + 1)));
    }
  }

  /** Closes the file that is read. */
  @Override
  public void close() {
    FileChannel open = channel;
    channel = null;
    if (open != null) {
      try {
        open.close();
      } catch (IOException e) {
        throw new ChemDataException(opened.file().file(), "cannot be closed: " + e, e);
      }
    }
  }
}
