// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

namespace molfuse {

struct PlanCounts {
  int64_t hits = 0, misses = 0, kept = 0;
};

/// The plans used last, at most `most` of them, by key: a plain struct without padding, compared as bytes. What cannot be planned is kept
/// too, as NULL with the reason. A plan lives as long as a call uses it, though it may have left the cache.
template <class Key, class Plan>
class PlanCache {
 public:
  explicit PlanCache(size_t most) : most_(most) {}

  struct Entry {
    std::shared_ptr<Plan> plan;
    std::string reason;
  };

  /// make(key, reason) returns a unique_ptr; it runs unlocked, so that two threads may make the same plan, of which one is kept.
  template <class Make>
  Entry get(const Key& key, Make&& make) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      const auto found = index_.find(bytes(key));
      if (found != index_.end()) {
        ++counts_.hits;
        order_.splice(order_.begin(), order_, found->second);
        return order_.front().entry;
      }
      ++counts_.misses;
    }
    Entry made;
    made.plan = make(key, made.reason);
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = index_.find(bytes(key));
    if (found != index_.end()) return found->second->entry;
    order_.push_front({key, made});
    index_[bytes(order_.front().key)] = order_.begin();
    if (order_.size() > most_) {
      index_.erase(bytes(order_.back().key));
      order_.pop_back();
    }
    return made;
  }

  PlanCounts counts() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    PlanCounts result = counts_;
    result.kept = static_cast<int64_t>(order_.size());
    return result;
  }

 private:
  struct Node {
    Key key;
    Entry entry;
  };
  static std::string_view bytes(const Key& key) { return {reinterpret_cast<const char*>(&key), sizeof key}; }

  const size_t most_;
  mutable std::mutex mutex_;
  std::list<Node> order_;  // last used first
  std::unordered_map<std::string_view, typename std::list<Node>::iterator> index_;
  PlanCounts counts_;
};

}  // namespace molfuse
