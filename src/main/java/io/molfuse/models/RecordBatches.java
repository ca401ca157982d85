// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import io.molfuse.chem.GraphBatch;
import io.molfuse.chem.MolecularProperty;
import io.molfuse.chem.MoleculeRecords;
import io.molfuse.chem.PropertyFunction;
import io.molfuse.chem.PropertyTable;
import io.molfuse.chem.RecordStream;
import io.molfuse.chem.StoredMolecule;
import io.molfuse.train.Collate;
import io.molfuse.train.DataLoader;
import io.molfuse.train.IndexedDataset;
import io.molfuse.train.SampleStream;
import io.molfuse.train.Sampler;
import io.molfuse.train.Seeds;
import io.molfuse.train.StagingRing;
import io.molfuse.train.StreamingDataset;
import java.io.IOException;
import java.util.List;

/**
 * Batches of prepared molecules, with every molecule exactly once an epoch whatever the number of threads. Molecules that fit in memory are
 * better taken from {@link MoleculeRecords#inMemory} with {@link MoleculeBatches}.
 */
public final class RecordBatches {
  private RecordBatches() {}

  /**
   * The molecules by number.
   *
   * @param records the molecules
   * @return a view of them
   */
  public static IndexedDataset<StoredMolecule> indexed(MoleculeRecords records) {
    return new IndexedDataset<>() {
      @Override
      public long size() {
        return records.size();
      }

      @Override
      public StoredMolecule get(long index) {
        return records.get(index);
      }
    };
  }

  /**
   * The molecules one after the other, in the order of their numbers.
   *
   * @param records the molecules
   * @return a view of them
   */
  public static StreamingDataset<StoredMolecule> streaming(MoleculeRecords records) {
    return new Streaming(records, false, 0);
  }

  /**
   * The molecules one after the other, files and blocks of 256 molecules in an order of each epoch's own. {@link StreamingDataset#shuffled}
   * parts the molecules of a block.
   *
   * @param records the molecules
   * @param seed decides the orders
   * @return a view of them
   */
  public static StreamingDataset<StoredMolecule> streaming(MoleculeRecords records, long seed) {
    return new Streaming(records, true, seed);
  }

  /**
   * A loader of molecules by number: each epoch has an order of its own among all. Keeps 4 bytes a molecule.
   *
   * @param records the molecules
   * @param batchSize molecules of a batch; the last of an epoch may have fewer
   * @param shuffle false keeps the order of the numbers
   * @param seed decides the orders
   * @return settings, to which threads and prefetch can be added
   */
  public static DataLoader.Builder<GraphBatch> indexedLoader(MoleculeRecords records, int batchSize, boolean shuffle, long seed) {
    return DataLoader.<StoredMolecule, GraphBatch>of(indexed(records), records::collate)
        .sampler(shuffle ? Sampler.shuffled(records.size(), seed) : Sampler.sequential(records.size()))
        .batchSize(batchSize);
  }

  /**
   * A loader that reads the files from their beginnings to their ends. What it keeps in memory depends on the buffer, on the batches under
   * way and on the size of one record file, not on the number of molecules.
   *
   * @param records the molecules
   * @param batchSize molecules of a batch; the last of an epoch may have fewer
   * @param buffer molecules to draw from, at least 1
   * @param seed decides the orders
   * @return settings, to which threads and prefetch can be added
   */
  public static DataLoader.Builder<GraphBatch> streamingLoader(MoleculeRecords records, int batchSize, int buffer, long seed) {
    return DataLoader.<StoredMolecule, GraphBatch>of(streaming(records, seed).shuffled(buffer, seed), records::collate)
        .batchSize(batchSize);
  }

  /**
   * A loader that reads as {@link #streamingLoader} does, adds the molecules' properties, which it computes each time, and sends the
   * batches to a device.
   *
   * @param records the molecules
   * @param properties which; may be none
   * @param function computes them
   * @param batchSize molecules of a batch; the last of an epoch may have fewer
   * @param buffer molecules to draw from, at least 1
   * @param seed decides the orders
   * @param ring leads to the device; must stay open as long as the loader
   * @return settings, to which threads and prefetch can be added
   */
  public static DataLoader.Builder<StagedBatch> staged(
      MoleculeRecords records,
      List<MolecularProperty> properties,
      PropertyFunction function,
      int batchSize,
      int buffer,
      long seed,
      StagingRing ring) {
    function.require(properties);
    Collate<StoredMolecule, GraphBatch> collate =
        molecules -> {
          GraphBatch batch = records.collate(molecules);
          return properties.isEmpty()
              ? batch
              : batch.with(PropertyTable.rows(molecules.stream().map(StoredMolecule::smiles).toList(), properties, function));
        };
    return DataLoader.of(streaming(records, seed).shuffled(buffer, seed), MoleculeBatches.staging(ring, collate)).batchSize(batchSize);
  }

  /** Each epoch opens the files anew. */
  private record Streaming(MoleculeRecords records, boolean shuffle, long seed) implements StreamingDataset<StoredMolecule> {
    @Override
    public long size() {
      return records.size();
    }

    @Override
    public SampleStream<StoredMolecule> open(long epoch) {
      RecordStream stream = shuffle ? records.stream(Seeds.mix(seed, epoch)) : records.stream();
      return new SampleStream<>() {
        @Override
        public StoredMolecule next() {
          return stream.next();
        }

        @Override
        public void skip(long samples) {
          stream.skip(samples);
        }

        @Override
        public void close() throws IOException {
          stream.close();
        }
      };
    }
  }
}
