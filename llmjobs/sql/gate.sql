-- Included by: claim, before fair_order.
-- Parameters: pool; default_rpm, default_tpm: of a model without limits; jitter_s: how late calls left this worker lately, at
-- most; ahead_s: how far ahead times to send are given out; portfolio_z, slow_down_ramp_s: as of conf.py.
-- Gives: `buckets`, the pool's and its account's, with how fast each drains (_rate, a second), what it holds (_burst) and when
-- it will have drained (_from), all in Unix seconds; `gate`, what of it the claim needs, in one row. Null: no such limit.
-- The arithmetic is that of ratelimits.py.
-- Index: bucketturn's primary key, newest first.
buckets as materialized (
    select b.*, c.running_now, d.late_s, d.largest_now, d.tokens_most, d.per_window, r.*, e.jitter_now,
        greatest(
            -- What is in it stays in it when it drains at another rate than it did. More than a claim ever puts in is of a
            -- clock that was set back.
            case
                when b.requests_at > b.clock
                then b.clock + least(
                    (b.requests_at - b.clock) * coalesce(b.drained_requests_rate / r.requests_rate, 1),
                    (2 * r.requests_burst + 1) / r.requests_rate + %(ahead_s)s)
                else b.requests_at
            end,
            -- A block that ended: the bucket is full, so that it opens without a burst.
            b.opened_at + (r.requests_burst - 1) / r.requests_rate,
            -- It holds no more than the provider says is left.
            b.left_at + (r.requests_burst - b.requests_left) / r.requests_rate
        ) as requests_from,
        greatest(
            -- No more than the provider has not forgotten yet: what was used may be any number.
            b.clock + least(
                case
                    when b.tokens_at > b.clock then (b.tokens_at - b.clock) * coalesce(b.drained_tokens_rate / r.tokens_rate, 1)
                    else b.tokens_at - b.clock
                end + coalesce(b.tokens_due / r.tokens_rate, 0),
                61 + %(ahead_s)s + r.tokens_burst / r.tokens_rate
            ),
            b.opened_at + r.tokens_burst / r.tokens_rate,
            b.left_at + (r.tokens_burst - b.tokens_left) / r.tokens_rate
        ) as tokens_from
    from (
        select b.*, x.rpm, x.tpm, x.max_running, x.window_s, x.token_policy, x.clock,
            max(b.blocked_until) filter (where b.blocked_by = 'rate_limit') over () as opened_at
        from (
            select 0 as kind, m.id as of_id, coalesce(m.rpm, %(default_rpm)s)::float8 as rpm, coalesce(m.tpm, %(default_tpm)s)::float8 as tpm,
                m.max_running, case m.window when 'second' then 1 else 60 end::float8 as window_s, m.token_policy,
                extract(epoch from statement_timestamp())::float8 as clock
            from llmjobs_model as m
            where m.id = %(pool)s
            union all
            select 1, p.id, p.rpm, p.tpm, p.max_running, 60, case m.token_policy when 'max_tokens' then 'expected' else m.token_policy end,
                extract(epoch from statement_timestamp())
            from llmjobs_model as m
            join llmjobs_provider as p on p.id = m.provider_id
            where m.id = %(pool)s
        ) as x
        cross join lateral (
            select ctid as row, kind, of_id, turn, requests_at, tokens_at, tokens_due, requests_rate as drained_requests_rate,
                tokens_rate as drained_tokens_rate, moved_at, opens_at, held_until, held_by, waits_since, requests, tokens, refusals, lies, queued, running, jitter_s, largest,
                learned, mean_tokens, error_var, requests_limit, tokens_limit, told_at, requests_left, tokens_left, left_at, rate_factor,
                factor_at, blocked_by, blocked_until, block_s, strikes, downs, struck_at
            from llmjobs_bucketturn
            where kind = x.kind and of_id = x.of_id
            order by turn desc
            limit 1
        ) as b
    ) as b
    -- Of an account: what its models run, where that is limited. A model may move to another account while it runs.
    cross join lateral (
        select case
            when b.kind = 1 and coalesce(b.tpm, b.max_running) is not null then (
                select sum(t.running)
                from llmjobs_model as m
                cross join lateral (
                    select running from llmjobs_bucketturn where kind = 0 and of_id = m.id order by turn desc limit 1
                ) as t
                where m.provider_id = b.of_id
            )
            else b.running
        end as running_now
    ) as c
    cross join lateral (
        select least(b.rpm, case when b.told_at > b.clock - 600 then b.requests_limit end) * b.window_s / 60 as requests
    ) as w
    cross join lateral (select
        greatest(%(jitter_s)s::float8, b.jitter_s * power(0.5, least(greatest((b.clock - b.moved_at) / 30, 0), 60))) as late_s,
        b.largest * power(0.5, least(greatest((b.clock - b.moved_at) / 300, 0), 60)) as largest_now,
        case when w.requests >= 1 then floor(w.requests) else w.requests end as per_window,
        least(b.tpm, case when b.told_at > b.clock - 600 then b.tokens_limit end) as tokens_most,
        least(1, b.rate_factor * power(2, least(greatest((b.clock - b.factor_at) / %(slow_down_ramp_s)s, 0), 60))) as factor
    ) as d
    cross join lateral (select
        least(greatest(d.late_s, case b.window_s when 1 then 0.06 else 0.25 end), 0.12 * b.window_s) as jitter_now,
        floor(d.per_window / 100) as spare,
        -- Room for a call of the usual size at least: a larger one waits longer than its tokens take to drain.
        greatest(least(d.largest_now, 0.1 * d.tokens_most), least(b.mean_tokens, 0.5 * d.tokens_most), 0.02 * d.tokens_most) as tokens_burst,
        case when b.token_policy = 'portfolio' then %(portfolio_z)s * sqrt(b.error_var * greatest(c.running_now, 0)) else 0 end as margin
    ) as e
    cross join lateral (select
        1 + e.spare as requests_burst,
        d.factor * (d.per_window - e.spare) / (b.window_s + e.jitter_now) as requests_rate,
        e.tokens_burst,
        d.factor * greatest(d.tokens_most - e.tokens_burst - e.margin, 0.1 * d.tokens_most)
            / (60 + least(greatest(d.late_s, 0.9), 7.2)) as tokens_rate, -- late by its slack, too
        e.spare / 2 / nullif(d.factor * (d.per_window - e.spare) / (b.window_s + e.jitter_now), 0) as slack_s
    ) as r
), gate as materialized (
    select min(clock) as clock,
        bool_and(coalesce(blocked_until <= clock, true))
            -- Who does not look at all lanes leaves the tokens alone that who is next waits for, or it would never fit.
            and (
                not (%(short_only)s or %(tiers)s::bigint[] is not null)
                or coalesce(max(held_until) filter (where kind = 0) <= min(clock), true)
            )
            and not bool_or(kind = 1 and held_by <> %(pool)s and held_until > clock) is true as is_open,
        max(blocked_until) filter (where blocked_until > clock) as blocked_until,
        bool_or(coalesce(blocked_by <> 'rate_limit', false)) as is_probe,
        -- As many as may be sent within the time ahead: those that come later are not even locked.
        min(floor((clock + %(ahead_s)s - greatest(requests_from, clock)) * requests_rate + requests_burst + 1e-9)) as slots,
        min(max_running - running_now) filter (where kind = 1) as room,
        max(token_policy) filter (where kind = 0) as token_policy,
        min(tokens_most) as tokens_most,
        max(per_window * 60 / window_s) filter (where kind = 0) as rpm,
        min(jitter_now) as jitter_s,
        -- Half of what a bucket of requests can hold more than one is kept for calls that leave late.
        max(slack_s) filter (where kind = 0) as pool_slack_s,
        coalesce(max(slack_s) filter (where kind = 1), 0) as account_slack_s,
        max(requests_from) filter (where kind = 0) as pool_requests_at,
        max(requests_rate) filter (where kind = 0) as pool_requests_rate,
        max(requests_burst) filter (where kind = 0) as pool_requests_burst,
        max(tokens_from) filter (where kind = 0) as pool_tokens_at,
        max(tokens_rate) filter (where kind = 0) as pool_tokens_rate,
        max(tokens_burst) filter (where kind = 0) as pool_tokens_burst,
        max(requests_from) filter (where kind = 1) as account_requests_at,
        max(requests_rate) filter (where kind = 1) as account_requests_rate,
        max(requests_burst) filter (where kind = 1) as account_requests_burst,
        max(tokens_from) filter (where kind = 1) as account_tokens_at,
        max(tokens_rate) filter (where kind = 1) as account_tokens_rate,
        max(tokens_burst) filter (where kind = 1) as account_tokens_burst
    from buckets
)
