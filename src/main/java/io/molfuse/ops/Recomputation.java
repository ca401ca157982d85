// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;

/**
 * A node of the graph whose gradients Java computes: what gradient checkpointing needs of libtorch. The node keeps a segment's
 * inputs; backward hands them to a {@link Segment}, on the thread and the CUDA stream that libtorch runs the node's backward on.
 *
 * <p>What a segment throws passes through libtorch's C++, which keeps the text only. {@link #backward} puts exception and text
 * together again; after a plain {@link Tensor#backward()}, {@link #failure} does.
 */
@SuppressWarnings("try") // A scope does its work by being open.
public final class Recomputation {
  private static final Pattern MARK = Pattern.compile("molfuse: recomputation failure (\\d+): ");
  private static final int KEPT_FAILURES = 16;

  private static final Map<Long, Segment> SEGMENTS = new HashMap<>();
  private static final Map<Long, Throwable> FAILURES =
      new LinkedHashMap<>() {
        @Override
        protected boolean removeEldestEntry(Map.Entry<Long, Throwable> eldest) {
          return size() > KEPT_FAILURES;
        }
      };
  private static long lastSegment;
  private static long lastFailure;

  private Recomputation() {}

  /** Computes a segment's gradients, and is closed when no backward will ask for them any more. */
  public interface Segment extends AutoCloseable {
    /**
     * Runs the segment again and differentiates it. Gradients are enabled. The vectors and the tensors in them are libtorch's:
     * they are valid during the call.
     *
     * @param inputs the inputs without history; those that required gradients do so again
     * @param gradOutputs one gradient for each output, undefined for none
     * @param gradInputs to put one gradient for each input into; undefined stays "none"
     */
    void backward(TensorVector inputs, TensorVector gradOutputs, TensorVector gradInputs);

    /** Releases what the segment holds. Called once, at a later call of {@link Recomputation#connect} or in it. */
    @Override
    void close();
  }

  /**
   * Gives outputs a history: a node whose backward calls the segment. Also where no input requires a gradient, since the segment
   * may use parameters that do.
   *
   * @param inputs what the segment gets back in backward, any types; overwriting their values before that is an error that
   *     backward reports
   * @param outputs computed from them without gradients; stays the caller's
   * @param segment computes the gradients; belongs to this class from here on, whether or not this call succeeds
   * @return tensors with the outputs' memory, in order, that belong to the caller's innermost scope; floating-point ones require
   *     gradients
   */
  public static List<Tensor> connect(List<Tensor> inputs, TensorVector outputs, Segment segment) {
    collect();
    long number = register(segment);
    try (TensorVector in = Native.vector(inputs)) {
      return List.of(Native.checkpointOutputs(in, Checks.open("outputs", outputs), number));
    } catch (RuntimeException | Error e) {
      // Should a node have been made and be gone again, it reports a number that is nobody's then.
      Segment unused = remove(number);
      if (unused != null) {
        unused.close();
      }
      throw e;
    }
  }

  /**
   * {@link Tensor#backward()} whose exception has what a segment threw as its cause.
   *
   * @param loss scalar with a history
   * @throws MolfuseException if a segment throws, with that as cause, or if libtorch fails
   */
  public static void backward(Tensor loss) {
    backward(() -> Checks.defined("loss", loss, "[]").backward());
  }

  /**
   * Runs a backward of any kind, with the exceptions of {@link #backward(Tensor)}.
   *
   * @param backward calls libtorch's backward
   */
  public static void backward(Runnable backward) {
    try {
      backward.run();
    } catch (MolfuseException | IllegalArgumentException e) {
      throw e;
    } catch (RuntimeException e) {
      Throwable failure = failure(e);
      if (failure instanceof MolfuseException nested && nested.getCause() != null) {
        throw nested;
      }
      if (failure != null) {
        throw new MolfuseException("recomputing a checkpointed segment in backward failed: " + failure, failure);
      }
      throw Native.translated(e);
    }
  }

  /**
   * What a segment threw, if that is why a backward failed.
   *
   * @param raised what backward threw
   * @return the segment's exception; null if it failed for another reason, or more than 16 failures ago
   */
  public static Throwable failure(RuntimeException raised) {
    Matcher matcher = MARK.matcher(String.valueOf(raised.getMessage()));
    if (!matcher.find()) {
      return null;
    }
    synchronized (FAILURES) {
      return FAILURES.get(Long.parseLong(matcher.group(1)));
    }
  }

  /** @return segments that a backward may still call, after closing those that none can */
  public static int pending() {
    collect();
    synchronized (SEGMENTS) {
      return SEGMENTS.size();
    }
  }

  /** Called by the bindings. Whatever is thrown here ends libtorch's backward. */
  static void run(long number, TensorVector inputs, TensorVector gradOutputs, TensorVector gradInputs) {
    Segment segment;
    synchronized (SEGMENTS) {
      segment = SEGMENTS.get(number);
    }
    try (PointerScope scope = new PointerScope()) {
      segment.backward(inputs, gradOutputs, gradInputs);
    } catch (Throwable failure) {
      throw new IllegalStateException(remember(failure) + failure, failure);
    }
  }

  private static String remember(Throwable failure) {
    synchronized (FAILURES) {
      FAILURES.put(++lastFailure, failure);
      return "molfuse: recomputation failure " + lastFailure + ": ";
    }
  }

  private static long register(Segment segment) {
    synchronized (SEGMENTS) {
      SEGMENTS.put(++lastSegment, segment);
      return lastSegment;
    }
  }

  private static Segment remove(long number) {
    synchronized (SEGMENTS) {
      return SEGMENTS.remove(number);
    }
  }

  private static void collect() {
    List<Segment> gone = new ArrayList<>();
    for (long number : Native.releasedSegments()) {
      Segment segment = remove(number);
      if (segment != null) {
        gone.add(segment);
      }
    }
    gone.forEach(Segment::close);
  }
}
