// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.lang.reflect.Field;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.Supplier;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.LongPointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.TensorVector;

/**
 * Counts native objects that Java owns and has not released, by type: a leak detector for tests. JavaCPP keeps a list of them, in which an
 * object is known by the function that will delete it; an example of each type tells which function is whose. Other types are
 * counted as "other".
 */
public final class LiveObjects {
  private static final Map<Class<?>, Supplier<Pointer>> EXAMPLES = new LinkedHashMap<>();

  static {
    EXAMPLES.put(Tensor.class, () -> Tensor.create(1f));
    EXAMPLES.put(TensorVector.class, TensorVector::new);
    EXAMPLES.put(TensorOptions.class, TensorOptions::new);
    EXAMPLES.put(Scalar.class, () -> new Scalar(1));
    EXAMPLES.put(Device.class, () -> new Device("cpu"));
    EXAMPLES.put(LongPointer.class, () -> new LongPointer(1L));
    EXAMPLES.put(FloatPointer.class, () -> new FloatPointer(1L));
  }

  private static final Map<Long, String> NAMES = names();

  private LiveObjects() {}

  private static Map<Long, String> names() {
    Map<Long, String> names = new LinkedHashMap<>();
    EXAMPLES.forEach(
        (type, make) -> {
          try (Pointer example = make.get()) {
            names.merge(function(field(Pointer.class, "deallocator", example)), type.getSimpleName(), (a, b) -> a + "/" + b);
          }
        });
    return names;
  }

  /** All that is there now. */
  public static Map<String, Integer> now() {
    Map<String, Integer> counts = new TreeMap<>();
    synchronized (type("DeallocatorReference")) {
      Class<?> list = type("DeallocatorReference");
      for (Object each = field(list, "head", null); each != null; each = field(list, "next", each)) {
        counts.merge(NAMES.getOrDefault(function(each), "other"), 1, Integer::sum);
      }
    }
    return counts;
  }

  /** What there is more of than before, by type. Fewer may be left of what others forgot, whenever the garbage collector runs. */
  public static Map<String, Integer> grownSince(Map<String, Integer> before) {
    Map<String, Integer> grown = new TreeMap<>();
    now().forEach((type, count) -> grown.put(type, count - before.getOrDefault(type, 0)));
    grown.values().removeIf(more -> more <= 0);
    return grown;
  }

  private static long function(Object reference) {
    return type("NativeDeallocator").isInstance(reference) ? (Long) field(type("NativeDeallocator"), "deallocatorAddress", reference) : 0;
  }

  private static Class<?> type(String name) {
    try {
      return Class.forName("org.bytedeco.javacpp.Pointer$" + name);
    } catch (ClassNotFoundException e) {
      throw new IllegalStateException(e);
    }
  }

  private static Object field(Class<?> type, String name, Object of) {
    try {
      Field field = type.getDeclaredField(name);
      field.setAccessible(true);
      return field.get(of);
    } catch (ReflectiveOperationException e) {
      throw new IllegalStateException(e);
    }
  }
}
