// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.IntFunction;

/** Properties of many molecules: 4 bytes each. Immutable and thread-safe. */
public final class PropertyTable {
  private static final int CHUNK = 256;
  private static final AtomicInteger POOLS = new AtomicInteger();

  private final List<MolecularProperty> properties;
  private final float[] values;

  private PropertyTable(List<MolecularProperty> properties, float[] values) {
    this.properties = properties;
    this.values = values;
  }

  /**
   * Computes the properties of all molecules of a data set.
   *
   * @param molecules a data set
   * @param properties which; what the function does not know is refused
   * @param function computes them
   * @param threads how many, at least 1; the result does not depend on it
   * @return by entry
   */
  public static PropertyTable of(MoleculeDataset molecules, List<MolecularProperty> properties, PropertyFunction function, int threads) {
    return of(molecules.size(), molecules::smiles, properties, function, threads);
  }

  /**
   * Computes the properties of molecules.
   *
   * @param size how many
   * @param smiles the molecule of a number below that; called from several threads at once
   * @param properties which; what the function does not know is refused
   * @param function computes them
   * @param threads how many, at least 1; the result does not depend on it
   * @return by number
   */
  public static PropertyTable of(
      int size, IntFunction<String> smiles, List<MolecularProperty> properties, PropertyFunction function, int threads) {
    function.require(properties);
    float[] values = new float[Math.multiplyExact(size, properties.size())];
    ExecutorService pool =
        Executors.newFixedThreadPool(
            threads,
            task -> {
              Thread thread = new Thread(task, "molfuse-properties-" + POOLS.incrementAndGet());
              thread.setDaemon(true);
              return thread;
            });
    try {
      List<Callable<Void>> chunks = new ArrayList<>();
      for (int first = 0; first < size; first += CHUNK) {
        int from = first;
        int to = Math.min(size, first + CHUNK);
        chunks.add(
            () -> {
              for (int i = from; i < to; i++) {
                float[] row = values(function, smiles.apply(i), properties);
                System.arraycopy(row, 0, values, i * row.length, row.length);
              }
              return null;
            });
      }
      for (Future<Void> chunk : pool.invokeAll(chunks)) {
        chunk.get();
      }
    } catch (ExecutionException e) {
      throw new IllegalStateException("computing properties failed", e.getCause());
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IllegalStateException("computing properties was interrupted", e);
    } finally {
      pool.shutdownNow();
    }
    return new PropertyTable(List.copyOf(properties), values);
  }

  /** NaN for a molecule that the function cannot do: one is no reason to end a run, and training takes its values as unknown. */
  private static float[] values(PropertyFunction function, String smiles, List<MolecularProperty> properties) {
    try {
      return function.of(smiles, properties);
    } catch (RuntimeException e) {
      float[] unknown = new float[properties.size()];
      Arrays.fill(unknown, Float.NaN);
      return unknown;
    }
  }

  /**
   * The properties of a few molecules, on this thread.
   *
   * @param smiles the molecules
   * @param properties which
   * @param function computes them
   * @return [molecules, properties] row by row; NaN where there is no value
   */
  public static float[] rows(List<String> smiles, List<MolecularProperty> properties, PropertyFunction function) {
    float[] rows = new float[Math.multiplyExact(smiles.size(), properties.size())];
    for (int i = 0; i < smiles.size(); i++) {
      System.arraycopy(values(function, smiles.get(i), properties), 0, rows, i * properties.size(), properties.size());
    }
    return rows;
  }

  /** @return which properties, in the order of the columns */
  public List<MolecularProperty> properties() {
    return properties;
  }

  /**
   * The properties of some molecules.
   *
   * @param entries their numbers
   * @return [entries, properties] row by row; NaN where there is no value
   */
  public float[] rows(int[] entries) {
    int width = properties.size();
    float[] rows = new float[Math.multiplyExact(entries.length, width)];
    for (int i = 0; i < entries.length; i++) {
      System.arraycopy(values, entries[i] * width, rows, i * width, width);
    }
    return rows;
  }

  /**
   * How the properties are distributed over some molecules.
   *
   * @param entries their numbers
   * @return one for each property
   * @throws IllegalArgumentException if no molecule has a value of one
   */
  public List<PropertyStatistics> statistics(int[] entries) {
    List<PropertyStatistics> statistics = new ArrayList<>();
    for (int p = 0; p < properties.size(); p++) {
      float[] column = new float[entries.length];
      for (int i = 0; i < column.length; i++) {
        column[i] = values[entries[i] * properties.size() + p];
      }
      statistics.add(PropertyStatistics.of(properties.get(p), column));
    }
    return statistics;
  }
}
