// SPDX-License-Identifier: Apache-2.0
package io.molfuse.benchmarks;

import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Level;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.Threads;

/**
 * The only JMH benchmark: calls one of the ways of the {@link Measurement} under way, the next one in each iteration. So every round has
 * one iteration of every way, and a spell in which the machine is slow hits all of them. Not forked, since the ways are to be compared
 * within one process.
 */
@State(Scope.Benchmark)
@BenchmarkMode(Mode.SampleTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@Fork(0)
@Threads(1)
public class Interleaved {
  private Runnable call;

  /** Turns to the next way. */
  @Setup(Level.Iteration)
  public void next() {
    Way way = Measurement.nextWay();
    way.prepare().run();
    call = way.call();
  }

  /** Calls it. */
  @org.openjdk.jmh.annotations.Benchmark
  public void call() {
    call.run();
  }
}
