// SPDX-License-Identifier: Apache-2.0
package io.molfuse.benchmarks;

import java.util.concurrent.TimeUnit;
import org.bytedeco.javacpp.PointerScope;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Level;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;

/** Forward and backward of one operator. Not forked: the ratio of two ways of doing the same is wanted, in one process. */
@State(Scope.Benchmark)
@BenchmarkMode(Mode.SampleTime)
@OutputTimeUnit(TimeUnit.MILLISECONDS)
@Fork(0)
public class OperatorBenchmark {
  @Param("")
  public String workload;

  private PointerScope scope;
  private Workload work;

  @Setup(Level.Trial)
  public void prepare() {
    scope = new PointerScope();
    work = Workloads.make(workload);
  }

  @TearDown(Level.Trial)
  public void release() {
    scope.close();
  }

  @Benchmark
  public void molfuse() {
    work.run(true);
  }

  @Benchmark
  public void libtorch() {
    work.run(false);
  }
}
