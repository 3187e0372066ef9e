-- Called by: events.wake, events.wake_on_commit, outside of the transaction that they tell of.
-- Parameters: channels, payloads (arrays of one length).
select pg_notify(m.channel, m.payload)
from unnest(%(channels)s::text[], %(payloads)s::text[]) as m (channel, payload)
