// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import io.molfuse.chem.GraphBatch;
import io.molfuse.chem.MolecularProperty;
import io.molfuse.chem.MoleculeDataset;
import io.molfuse.chem.MoleculeStream;
import io.molfuse.chem.PropertyFunction;
import io.molfuse.chem.PropertyTable;
import io.molfuse.train.BatchSource;
import io.molfuse.train.Collate;
import io.molfuse.train.DataLoader;
import io.molfuse.train.IndexedDataset;
import io.molfuse.train.SampleStream;
import io.molfuse.train.Sampler;
import io.molfuse.train.StagingRing;
import io.molfuse.train.StreamingDataset;
import io.molfuse.train.Transfer;
import java.util.BitSet;
import java.util.List;

/**
 * Batches of a data set's entries by number, made on the calling thread; {@link #loader} makes the same ones on several, and
 * {@link #staged} sends them to a device, too.
 */
public final class MoleculeBatches implements BatchSource<GraphBatch> {
  private final MoleculeDataset dataset;
  private final int[] entries;
  private final int batchSize;
  private final Sampler sampler;
  private PropertyTable properties;

  /**
   * Batches of some of a data set's entries.
   *
   * @param dataset where the molecules are
   * @param entries which of them; at least one
   * @param batchSize molecules of a batch; the last of an epoch may have fewer
   * @param shuffle whether each epoch has its own order
   * @param seed decides the orders
   */
  public MoleculeBatches(MoleculeDataset dataset, int[] entries, int batchSize, boolean shuffle, long seed) {
    if (entries.length == 0) {
      throw new IllegalArgumentException("entries must not be empty");
    }
    if (batchSize < 1) {
      throw new IllegalArgumentException("batchSize must be at least 1, but is " + batchSize);
    }
    this.dataset = dataset;
    this.entries = entries.clone();
    this.batchSize = batchSize;
    sampler = sampler(entries, shuffle, seed);
  }

  /**
   * A loader of the same batches in the same order.
   *
   * @param dataset where the molecules are
   * @param entries which of them; at least one
   * @param batchSize molecules of a batch; the last of an epoch may have fewer
   * @param shuffle whether each epoch has its own order
   * @param seed decides the orders
   * @return settings, to which threads and prefetch can be added
   */
  public static DataLoader.Builder<GraphBatch> loader(
      MoleculeDataset dataset, int[] entries, int batchSize, boolean shuffle, long seed) {
    return loader(entries, batchSize, shuffle, seed, collate(dataset));
  }

  /**
   * A loader of the same batches in the same order, which its threads also send to a device.
   *
   * @param dataset where the molecules are
   * @param entries which of them; at least one
   * @param batchSize molecules of a batch; the last of an epoch may have fewer
   * @param shuffle whether each epoch has its own order
   * @param seed decides the orders
   * @param ring leads to the device; must stay open as long as the loader
   * @return settings, to which threads and prefetch can be added
   */
  public static DataLoader.Builder<StagedBatch> staged(
      MoleculeDataset dataset, int[] entries, int batchSize, boolean shuffle, long seed, StagingRing ring) {
    return staged(dataset, null, entries, batchSize, shuffle, seed, ring);
  }

  /**
   * A loader of the same batches with the molecules' properties, which its threads also send to a device.
   *
   * @param dataset where the molecules are
   * @param properties of all of the data set's molecules; null without
   * @param entries which of them; at least one
   * @param batchSize molecules of a batch; the last of an epoch may have fewer
   * @param shuffle whether each epoch has its own order
   * @param seed decides the orders
   * @param ring leads to the device; must stay open as long as the loader
   * @return settings, to which threads and prefetch can be added
   */
  public static DataLoader.Builder<StagedBatch> staged(
      MoleculeDataset dataset, PropertyTable properties, int[] entries, int batchSize, boolean shuffle, long seed, StagingRing ring) {
    Collate<Integer, GraphBatch> plain = collate(dataset);
    Collate<Integer, GraphBatch> collate = properties == null ? plain : numbers -> described(plain.collate(numbers), properties);
    return loader(entries, batchSize, shuffle, seed, staging(ring, collate));
  }

  private static GraphBatch described(GraphBatch batch, PropertyTable properties) {
    return batch.with(properties.rows(batch.indices()));
  }

  /**
   * A loader of molecules that are read again each epoch.
   *
   * @param molecules where they are
   * @param entries which of them; at least one; not to be changed afterwards
   * @param batchSize molecules of a batch; the last of an epoch may have fewer
   * @param buffer molecules that are mixed, 1 for the order of the file
   * @param seed decides the orders
   * @param ring leads to the device; must stay open as long as the loader
   * @return settings, to which threads and prefetch can be added
   */
  public static DataLoader.Builder<StagedBatch> streamed(
      MoleculeStream molecules, BitSet entries, int batchSize, int buffer, long seed, StagingRing ring) {
    return streamed(molecules, List.of(), PropertyFunction.standard(), entries, batchSize, buffer, seed, ring);
  }

  /**
   * A loader of molecules that are read again each epoch, with their properties, which are computed each time.
   *
   * @param molecules where they are
   * @param properties which; may be none
   * @param function computes them
   * @param entries which molecules; at least one; not to be changed afterwards
   * @param batchSize molecules of a batch; the last of an epoch may have fewer
   * @param buffer molecules that are mixed, 1 for the order of the file
   * @param seed decides the orders
   * @param ring leads to the device; must stay open as long as the loader
   * @return settings, to which threads and prefetch can be added
   */
  public static DataLoader.Builder<StagedBatch> streamed(
      MoleculeStream molecules,
      List<MolecularProperty> properties,
      PropertyFunction function,
      BitSet entries,
      int batchSize,
      int buffer,
      long seed,
      StagingRing ring) {
    function.require(properties);
    long size = entries.cardinality();
    StreamingDataset<MoleculeStream.Entry> lines =
        new StreamingDataset<>() {
          @Override
          public SampleStream<MoleculeStream.Entry> open(long epoch) {
            MoleculeStream.Reader reader = molecules.read(entries);
            return new SampleStream<>() {
              @Override
              public MoleculeStream.Entry next() {
                return reader.next();
              }

              @Override
              public void close() {
                reader.close();
              }
            };
          }

          @Override
          public long size() {
            return size;
          }
        };
    Collate<MoleculeStream.Entry, GraphBatch> collate =
        samples -> {
          GraphBatch batch = molecules.collate(samples);
          return properties.isEmpty() ? batch : batch.with(PropertyTable.rows(smiles(samples), properties, function));
        };
    return DataLoader.of(lines.shuffled(buffer, seed), staging(ring, collate)).batchSize(batchSize);
  }

  private static <B> DataLoader.Builder<B> loader(
      int[] entries, int batchSize, boolean shuffle, long seed, Collate<Integer, B> collate) {
    int[] own = entries.clone();
    IndexedDataset<Integer> samples =
        new IndexedDataset<>() {
          @Override
          public long size() {
            return own.length;
          }

          @Override
          public Integer get(long index) {
            return own[(int) index];
          }
        };
    return DataLoader.<Integer, B>of(samples, collate).sampler(sampler(entries, shuffle, seed)).batchSize(batchSize);
  }

  private static Collate<Integer, GraphBatch> collate(MoleculeDataset dataset) {
    return batch -> dataset.collate(batch.stream().mapToInt(Integer::intValue).toArray());
  }

  /** Batches that are sent to a device by the thread that makes them. */
  static <S> Collate<S, StagedBatch> staging(StagingRing ring, Collate<S, GraphBatch> collate) {
    Collate<S, Transfer> staged = ring.staging(collate, (batches, slot) -> VaeBatch.stage(batches.get(0), slot));
    return samples -> new StagedBatch(staged.collate(samples), samples.size());
  }

  private static List<String> smiles(List<MoleculeStream.Entry> samples) {
    return samples.stream().map(sample -> sample.line().smiles()).toList();
  }

  private static Sampler sampler(int[] entries, boolean shuffle, long seed) {
    return shuffle ? Sampler.shuffled(entries.length, seed) : Sampler.sequential(entries.length);
  }

  /**
   * Adds the molecules' properties to the batches.
   *
   * @param table of all of the data set's molecules
   * @return this
   */
  public MoleculeBatches properties(PropertyTable table) {
    properties = table;
    return this;
  }

  @Override
  public long batchesPerEpoch() {
    return (entries.length - 1) / batchSize + 1;
  }

  @Override
  public GraphBatch batch(long index) {
    long epoch = index / batchesPerEpoch();
    int first = (int) (index % batchesPerEpoch()) * batchSize;
    int[] batch = new int[Math.min(batchSize, entries.length - first)];
    for (int i = 0; i < batch.length; i++) {
      batch[i] = entries[(int) sampler.index(epoch, first + i)];
    }
    return properties == null ? dataset.collate(batch) : described(dataset.collate(batch), properties);
  }
}
