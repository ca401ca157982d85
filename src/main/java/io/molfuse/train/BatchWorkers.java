// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Consumer;

/**
 * Threads that make batches ahead of whoever takes them. They live through any number of passes over the data, of which one is under
 * way at a time. Batches made or being made and not yet taken are never more than the bound.
 *
 * @param <B> a batch
 */
final class BatchWorkers<B> implements AutoCloseable {
  /** A batch to make. */
  record Job<B>(long epoch, long batch, Callable<B> maker) {}

  /** A batch that was made. */
  record Made<B>(long epoch, long batch, B value) {}

  /** What to make, in this order. Used by one thread at a time. */
  interface Plan<B> extends AutoCloseable {
    /** The next batch to make, null at the end. */
    Job<B> next() throws Exception;

    @Override
    default void close() {}
  }

  private record Item<B>(Made<B> made, Throwable failure) {}

  /** One pass. Its fields belong to the lock, the plan to whoever holds {@link #claiming}. */
  static final class Pass<B> {
    private final Plan<B> plan;
    private final ReentrantLock claiming = new ReentrantLock();
    private final Map<Long, Item<B>> done = new HashMap<>();
    private long issued;
    private long taken;
    private boolean ended;

    private Pass(Plan<B> plan) {
      this.plan = plan;
    }
  }

  private static final long PATIENCE_MILLIS = 10_000;

  private final ReentrantLock lock = new ReentrantLock();
  private final Condition room = lock.newCondition();
  private final Condition ready = lock.newCondition();
  private final List<Thread> threads = new ArrayList<>();
  private final String name;
  private final int count;
  private final int bound;
  private final boolean ordered;
  private final Consumer<B> release;
  private final long patienceMillis;
  private Pass<B> current;
  /** Batches being made for passes that are over: they count, too, until they are released. */
  private int stale;
  private boolean closed;

  BatchWorkers(String name, int count, int bound, boolean ordered, Consumer<B> release) {
    this(name, count, bound, ordered, release, PATIENCE_MILLIS);
  }

  /** @param patienceMillis how long to wait for whoever reads from a plan or makes a batch that nobody wants any more */
  BatchWorkers(String name, int count, int bound, boolean ordered, Consumer<B> release, long patienceMillis) {
    this.name = name;
    this.count = count;
    this.bound = bound;
    this.ordered = ordered;
    this.release = release;
    this.patienceMillis = patienceMillis;
  }

  /** Begins a pass; ends the one before. */
  Pass<B> start(Plan<B> plan) {
    Pass<B> pass = new Pass<>(plan);
    stop();
    lock.lock();
    try {
      if (closed) {
        throw new IllegalStateException("the loader is closed");
      }
      current = pass;
      while (threads.size() < count) {
        Thread thread = new Thread(this::work, name + "-" + threads.size());
        thread.setDaemon(true);
        threads.add(thread);
        thread.start();
      }
      room.signalAll();
    } finally {
      lock.unlock();
    }
    return pass;
  }

  /** Ends the pass under way and releases what it had ready. */
  void stop() {
    List<Item<B>> left = new ArrayList<>();
    Pass<B> pass;
    lock.lock();
    try {
      pass = current;
      current = null;
      if (pass != null) {
        left.addAll(pass.done.values());
        pass.done.clear();
        stale += (int) (pass.issued - pass.taken - left.size());
      }
      ready.signalAll();
    } finally {
      lock.unlock();
    }
    left.forEach(this::drop);
    if (pass != null) {
      // After close() has waited, a thread that did not react to its interrupt may read for ever.
      close(pass, isClosed() ? 0 : patienceMillis);
    }
  }

  private boolean isClosed() {
    lock.lock();
    try {
      return closed;
    } finally {
      lock.unlock();
    }
  }

  boolean isCurrent(Pass<B> pass) {
    lock.lock();
    try {
      return pass != null && pass == current;
    } finally {
      lock.unlock();
    }
  }

  /** The next batch of a pass, null at its end. Throws what the thread threw that was to make it. */
  Made<B> take(Pass<B> pass) throws Throwable {
    Item<B> item;
    lock.lockInterruptibly();
    try {
      Long ticket = null;
      while (ticket == null) {
        if (closed) {
          throw new IllegalStateException("the loader is closed");
        }
        if (pass != current) {
          throw new IllegalStateException("this pass is over, since it was closed or another one was begun");
        }
        if (pass.ended && pass.taken == pass.issued) {
          return null;
        }
        ticket = available(pass);
        if (ticket == null) {
          ready.await();
        }
      }
      item = pass.done.remove(ticket);
      pass.taken++;
      room.signalAll();
    } finally {
      lock.unlock();
    }
    if (item.failure != null) {
      throw item.failure;
    }
    return item.made;
  }

  private Long available(Pass<B> pass) {
    if (ordered) {
      return pass.done.containsKey(pass.taken) ? (Long) pass.taken : null;
    }
    return pass.done.isEmpty() ? null : pass.done.keySet().iterator().next();
  }

  private void work() {
    while (true) {
      Pass<B> pass;
      lock.lock();
      try {
        while (!closed && !hasRoom(current)) {
          room.await();
        }
        if (closed) {
          return;
        }
        pass = current;
      } catch (InterruptedException e) {
        // Only close() means it; a stray interrupt of a worker that waits changes nothing.
        continue;
      } finally {
        lock.unlock();
      }
      makeOne(pass);
    }
  }

  private boolean hasRoom(Pass<B> pass) {
    return pass != null && !pass.ended && pass.issued - pass.taken + stale < bound;
  }

  private void makeOne(Pass<B> pass) {
    long ticket;
    Job<B> job = null;
    Throwable failure = null;
    try {
      pass.claiming.lockInterruptibly();
    } catch (InterruptedException e) {
      // As for a worker that waits for room.
      return;
    }
    // The order of tickets is that of the plan, so both are drawn at once.
    try {
      lock.lock();
      try {
        if (closed || pass != current || !hasRoom(pass)) {
          return;
        }
        ticket = pass.issued++;
      } finally {
        lock.unlock();
      }
      try {
        job = pass.plan.next();
      } catch (Throwable e) {
        failure = e;
      }
      if (job == null) {
        end(pass, failure == null);
        if (failure == null) {
          return;
        }
      }
    } finally {
      pass.claiming.unlock();
      if (!isCurrent(pass) || isClosed()) {
        // Whoever ended the pass may not have waited for this thread.
        close(pass, 0);
      }
    }
    Item<B> item = failure != null ? new Item<>(null, failure) : make(job);
    boolean wanted;
    lock.lock();
    try {
      // A batch that close() interrupted failed for no reason of its own.
      wanted = pass == current && !closed;
      if (wanted) {
        pass.done.put(ticket, item);
        ready.signalAll();
      }
    } finally {
      lock.unlock();
    }
    if (!wanted) {
      drop(item);
      forget();
    }
  }

  /** Nothing more is asked of the plan. Without a failure, the ticket that was drawn last is for nothing. */
  private void end(Pass<B> pass, boolean withoutFailure) {
    lock.lock();
    try {
      pass.ended = true;
      if (withoutFailure) {
        pass.issued--;
        stale -= pass == current ? 0 : 1;
      }
      ready.signalAll();
      room.signalAll();
    } finally {
      lock.unlock();
    }
  }

  private void forget() {
    lock.lock();
    try {
      stale--;
      room.signalAll();
    } finally {
      lock.unlock();
    }
  }

  private Item<B> make(Job<B> job) {
    try {
      return new Item<>(new Made<>(job.epoch, job.batch, job.maker.call()), null);
    } catch (Throwable e) {
      return new Item<>(null, e);
    }
  }

  private void drop(Item<B> item) {
    if (item.made != null) {
      release.accept(item.made.value);
    }
  }

  /** Closes the plan of a pass that is over. If someone still reads from it when the time is up, they do it when they have finished. */
  private void close(Pass<B> pass, long millis) {
    try {
      if (!pass.claiming.tryLock(millis, TimeUnit.MILLISECONDS)) {
        return;
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      if (!pass.claiming.tryLock()) {
        return;
      }
    }
    try {
      pass.plan.close();
    } catch (RuntimeException e) {
      // What could not be closed was read to the end or is no longer wanted: nobody can do anything about it.
    } finally {
      pass.claiming.unlock();
    }
  }

  /** Ends all threads. One that does not react to an interrupt for 10 s is left; it ends when its batch is done. */
  @Override
  public void close() {
    List<Thread> ending;
    lock.lock();
    try {
      closed = true;
      room.signalAll();
      ready.signalAll();
      ending = new ArrayList<>(threads);
      threads.clear();
    } finally {
      lock.unlock();
    }
    ending.forEach(Thread::interrupt);
    boolean interrupted = false;
    long deadline = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(patienceMillis);
    for (Thread thread : ending) {
      try {
        if (thread != Thread.currentThread()) {
          TimeUnit.NANOSECONDS.timedJoin(thread, deadline - System.nanoTime());
        }
      } catch (InterruptedException e) {
        interrupted = true;
      }
    }
    stop();
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
  }
}
