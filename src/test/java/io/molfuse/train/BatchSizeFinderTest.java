// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.ArrayList;
import java.util.List;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.IntRange;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;

@SuppressWarnings("try")
class BatchSizeFinderTest {
  /** As libtorch words it. */
  private static final String NATIVE_ERROR =
      "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 7.79 GiB of which 6.31 MiB is free. "
          + "Including non-PyTorch memory, this process has 7.78 GiB memory in use. Of the allocated memory 7.50 GiB is allocated "
          + "by PyTorch, and 128.00 MiB is reserved by PyTorch but unallocated.\n"
          + "Exception raised from malloc at CUDACachingAllocator.cpp:1371 (most recent call first):\nframe #0: c10::Error";

  /** One weight, a buffer that training changes, and a memory that holds so many samples. */
  private static final class SmallMemoryTask implements TrainingTask<Integer>, AutoCloseable {
    final ParameterSet parameters = new ParameterSet();
    final Tensor weight;
    final Tensor seen;
    final int limit;
    final List<Integer> trained = new ArrayList<>();
    /** Not among the parameters, so that its gradient counts the backward passes. */
    final Tensor probe;

    SmallMemoryTask(int limit) {
      this.limit = limit;
      try (PointerScope scope = new PointerScope()) {
        weight = parameters.parameter("weight", "all", torch.full(new long[] {1}, new Scalar(3)).to(ScalarType.Float));
        seen = parameters.buffer("seen", torch.zeros(1));
        probe = torch.zeros(1).set_requires_grad(true);
        probe.retainReference();
      }
    }

    @Override
    public ParameterSet parameters() {
      return parameters;
    }

    @Override
    public Losses train(Integer batch, long seed) {
      assertThat(weight.grad().defined()).isFalse();
      try (NoGradGuard noGrad = new NoGradGuard()) {
        seen.add_(new Scalar(1));
      }
      if (batch > limit) {
        throw new RuntimeException(NATIVE_ERROR);
      }
      trained.add(batch);
      return new Losses(weight.mul(new Scalar(2)).add(probe).sum());
    }

    @Override
    public Losses evaluate(Integer batch, long seed) {
      throw new UnsupportedOperationException();
    }

    @Override
    public int samples(Integer batch) {
      return batch;
    }

    @Override
    public void close() {
      parameters.close();
      probe.releaseReference();
    }
  }

  @Property(tries = 200)
  void findsTheLimit(@ForAll @IntRange(min = 1, max = 5000) int limit, @ForAll @IntRange(min = 1, max = 6000) int most) {
    int[] recovered = {0};
    BatchSizeFinder.Result result =
        BatchSizeFinder.search(
            size -> {
              if (size > limit) {
                throw new IllegalStateException("a wrapper", new RuntimeException(NATIVE_ERROR));
              }
            },
            () -> recovered[0]++,
            most);
    int largest = Math.min(limit, most);
    assertThat(result.largest()).isEqualTo(largest);
    assertThat(result.batchSize()).isEqualTo(Math.max(1, (int) Math.floor(0.8 * largest)));
    assertThat(result.limited()).isEqualTo(limit < most);
    assertThat(result.tried()).hasSizeLessThan(30).allSatisfy((size, good) -> assertThat(good).isEqualTo(size <= limit));
    assertThat(recovered[0]).isEqualTo(result.tried().size());
  }

  @Test
  void sizesBeyondCountingAreNotTried() {
    BatchSizeFinder.Result result = BatchSizeFinder.search(size -> assertThat(size).isPositive(), () -> {}, Integer.MAX_VALUE);
    assertThat(result.largest()).isEqualTo(Integer.MAX_VALUE);
    assertThat(result.limited()).isFalse();
  }

  @Test
  void trainsRealStepsAndLeavesTheModelAsItWas() {
    try (SmallMemoryTask task = new SmallMemoryTask(37)) {
      long objects = Pointer.totalCount();
      BatchSizeFinder.Result result = BatchSizeFinder.find(task, size -> size, 1000);
      assertThat(result.largest()).isEqualTo(37);
      assertThat(result.batchSize()).isEqualTo(29);
      assertThat(result.limited()).isTrue();
      assertThat(task.trained).contains(1, 2, 4, 8, 16, 32, 37).doesNotContain(38);
      try (PointerScope scope = new PointerScope()) {
        assertThat(task.weight.grad().defined()).isFalse();
        assertThat(new FloatPointer(task.weight.data_ptr()).get()).isEqualTo(3);
        assertThat(new FloatPointer(task.seen.data_ptr()).get()).isZero();
        assertThat(task.trained.size()).isEqualTo(2L * result.tried().values().stream().filter(good -> good).count());
        assertThat(new FloatPointer(task.probe.grad().data_ptr()).get()).isEqualTo(task.trained.size());
      }
      assertThat(Pointer.totalCount() - objects).isLessThan(40);
    }
  }

  /** Uses a batch up, as training on one does. */
  private abstract static class ConsumingTask<B> implements TrainingTask<B>, AutoCloseable {
    final ParameterSet parameters = new ParameterSet();
    final Tensor weight;

    ConsumingTask() {
      try (PointerScope scope = new PointerScope()) {
        weight = parameters.parameter("weight", "all", torch.ones(1));
      }
    }

    abstract Tensor consumed(B batch);

    @Override
    public ParameterSet parameters() {
      return parameters;
    }

    @Override
    public Losses train(B batch, long seed) {
      return new Losses(consumed(batch).mul(weight).sum());
    }

    @Override
    public Losses evaluate(B batch, long seed) {
      throw new UnsupportedOperationException();
    }

    @Override
    public int samples(B batch) {
      return 1;
    }

    @Override
    public void close() {
      parameters.close();
    }
  }

  @Test
  void everyStepHasATensorOfItsOwnWhichGoesWithIt() {
    List<Tensor> made = new ArrayList<>();
    ConsumingTask<Tensor> task =
        new ConsumingTask<>() {
          @Override
          Tensor consumed(Tensor batch) {
            if (batch.numel() > 5) {
              throw new RuntimeException(NATIVE_ERROR);
            }
            return batch.add_(new Scalar(1));
          }
        };
    try (task) {
      BatchSizeFinder.Result result =
          BatchSizeFinder.find(
              task,
              size -> {
                made.add(torch.ones(size));
                return made.get(made.size() - 1);
              },
              100);
      assertThat(result.largest()).isEqualTo(5);
      // Two for each size that trained, one for each that did not.
      assertThat(made).hasSize(result.tried().values().stream().mapToInt(good -> good ? 2 : 1).sum());
      assertThat(made).allSatisfy(tensor -> assertThat(tensor.isNull()).isTrue());
    }
  }

  @Test
  void transfersAreTakenOnceAndClosedIfTheyAreNot() {
    try (SlowSide side = new SlowSide(0, true)) {
      ConsumingTask<Transfer> task =
          new ConsumingTask<>() {
            @Override
            Tensor consumed(Transfer batch) {
              if (batch.bytes() > 4 * 6) {
                // Before it is taken.
                throw new RuntimeException(NATIVE_ERROR);
              }
              return batch.take().get(0);
            }
          };
      try (task) {
        try (StagingRing ring = new StagingRing(side, 2)) {
          BatchSizeFinder.Result result =
              BatchSizeFinder.find(
                  task,
                  size -> {
                    try {
                      return ring.to(List.of(torch.ones(size)));
                    } catch (InterruptedException e) {
                      throw new IllegalStateException(e);
                    }
                  },
                  100);
          assertThat(result.largest()).isEqualTo(6);
        }
        assertThat(side.openEvents).hasValue(0);
      }
    }
  }

  @Test
  void otherFailuresAreNotTakenForALackOfMemory() {
    assertThatThrownBy(
            () ->
                BatchSizeFinder.search(
                    size -> {
                      throw new IllegalStateException("a bug");
                    },
                    () -> {},
                    8))
        .isInstanceOf(IllegalStateException.class)
        .hasMessage("a bug");
    try (SmallMemoryTask task = new SmallMemoryTask(0)) {
      assertThatThrownBy(() -> BatchSizeFinder.find(task, size -> size, 8)).isInstanceOf(DeviceOutOfMemoryException.class);
    }
    assertThatThrownBy(() -> BatchSizeFinder.search(size -> {}, () -> {}, 0)).hasMessageContaining("most");
  }

  @Test
  void whatWasAllocatedIsReadFromTheError() {
    assertThat(DeviceOutOfMemoryException.isOutOfMemory(new RuntimeException(NATIVE_ERROR))).isTrue();
    DeviceOutOfMemoryException e =
        (DeviceOutOfMemoryException) DeviceOutOfMemoryException.mapped(new RuntimeException(NATIVE_ERROR));
    assertThat(e.requested()).isEqualTo(20L << 20);
    assertThat(e.allocated()).isEqualTo(7L * (1 << 30) + (1 << 29));
    assertThat(e.reserved() - e.allocated()).isEqualTo(128L << 20);
    assertThat(e).hasMessageStartingWith(
        "the device has no memory left, asked for 20.00 MiB, 7.50 GiB are in use of 7.63 GiB reserved. Try a smaller batch.");
    assertThat(e.getMessage()).doesNotContain("frame #0");
    // Mapping twice changes nothing.
    assertThat(DeviceOutOfMemoryException.mapped(e)).isSameAs(e);
  }

  @Test
  void sizesAreAskedOfTheDeviceThatATextNames() {
    assertThat(DeviceOutOfMemoryException.device(NATIVE_ERROR.replace("GPU 0", "GPU 3"), 8)).isEqualTo(3);
    assertThat(DeviceOutOfMemoryException.device("CUDA error: out of memory", 1)).isZero();
    assertThat(DeviceOutOfMemoryException.device("CUDA error: out of memory", 2)).isEqualTo(-1);
    assertThat(DeviceOutOfMemoryException.isOfDevice("CUDA error: out of memory")).isTrue();
    assertThat(DeviceOutOfMemoryException.isOfDevice("CUBLAS_STATUS_ALLOC_FAILED")).isTrue();
    assertThat(DeviceOutOfMemoryException.isOfDevice("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
        .isFalse();
    assertThat(DeviceOutOfMemoryException.isOfDevice("std::bad_alloc")).isFalse();
  }

  @Test
  void libtorchsOwnErrorIsRecognised() {
    RuntimeException raised = null;
    try (PointerScope scope = new PointerScope()) {
      torch.empty(new long[] {1L << 50}, new TensorOptions(ScalarType.Byte), null);
    } catch (RuntimeException e) {
      raised = e;
    }
    assertThat(raised).isNotNull();
    assertThat(DeviceOutOfMemoryException.mapped(raised))
        .isInstanceOfSatisfying(DeviceOutOfMemoryException.class, e -> assertThat(e.requested()).isEqualTo(1L << 50))
        .hasCause(raised);
  }

  @Test
  void otherFailuresStayWhatTheyAre() {
    RuntimeException other = new RuntimeException("The size of tensor a (3) must match the size of tensor b (4)");
    assertThat(DeviceOutOfMemoryException.mapped(other)).isSameAs(other);
    assertThat(DeviceOutOfMemoryException.isOutOfMemory(new OutOfMemoryError("Java heap space"))).isFalse();
    assertThatThrownBy(() -> DeviceOutOfMemoryException.mapped(new OutOfMemoryError("Java heap space")))
        .isInstanceOf(OutOfMemoryError.class);
    OutOfMemoryError threads =
        new OutOfMemoryError("unable to create native thread: possibly out of memory or process/resource limits reached");
    assertThat(DeviceOutOfMemoryException.isOutOfMemory(threads)).isFalse();
    assertThat(DeviceOutOfMemoryException.isOutOfMemory(new RuntimeException(threads))).isFalse();
    assertThat(DeviceOutOfMemoryException.isOutOfMemory(new RuntimeException())).isFalse();
    for (String text :
        new String[] {
          "Physical memory usage is too high: physicalBytes (3G) > maxPhysicalBytes (2G)",
          "Cannot allocate new FloatPointer(1000): totalBytes = 1M, physicalBytes = 1G"
        }) {
      assertThat(DeviceOutOfMemoryException.isOutOfMemory(new OutOfMemoryError(text))).as(text).isTrue();
      assertThat(DeviceOutOfMemoryException.isOutOfMemory(new IllegalStateException(new OutOfMemoryError(text)))).as(text).isTrue();
    }
    for (String text :
        new String[] {
          "molfuse: out of memory: attention: 12 bytes",
          "CUDA error: out of memory",
          "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
          "std::bad_alloc"
        }) {
      assertThat(DeviceOutOfMemoryException.isOutOfMemory(new RuntimeException(text))).as(text).isTrue();
    }
    assertThat(DeviceOutOfMemoryException.words(1023)).isEqualTo("1023 bytes");
    assertThat(DeviceOutOfMemoryException.words(3L << 19)).isEqualTo("1.50 MiB");
  }
}
