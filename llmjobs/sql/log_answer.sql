-- Included by: reclaim, as a subquery beside m: a job whose answer is in the log, whole or broken off.
-- Returns: output, the body that the provider would have sent, as JSON text with its keys in their order, and usage, which
-- is an estimate. finish_reason is `interrupted` where the stream broke off.
select
    case
        when m.endpoint = '/v1/responses' then json_build_object(
            'object', 'response', 'created_at', u.at, 'status', 'incomplete',
            'incomplete_details', json_build_object('reason', 'interrupted'), 'model', m.upstream_name,
            'output', json_build_array(json_build_object(
                'type', 'message', 'role', 'assistant', 'status', 'incomplete',
                'content', json_build_array(json_build_object(
                    'type', 'output_text', 'text', m.output_text, 'annotations', '[]'::json)))),
            'usage', u.usage)
        else json_build_object(
            'id', null, 'object', 'chat.completion', 'created', u.at, 'model', m.upstream_name,
            'choices', json_build_array(json_build_object(
                'index', 0,
                'message', json_build_object('role', 'assistant', 'content', m.output_text, 'refusal', null),
                'logprobs', null, 'finish_reason', coalesce(m.finish_reason, 'interrupted'))),
            'usage', u.usage)
    end::text as output,
    u.usage::jsonb as usage
from (select
    floor(extract(epoch from statement_timestamp()))::bigint as at,
    case
        when m.endpoint = '/v1/responses' then json_build_object(
            'input_tokens', m.input_tokens, 'output_tokens', m.output_tokens, 'total_tokens', m.input_tokens + m.output_tokens,
            'is_estimate', true)
        else json_build_object(
            'prompt_tokens', m.input_tokens, 'completion_tokens', m.output_tokens,
            'total_tokens', m.input_tokens + m.output_tokens, 'is_estimate', true)
    end as usage
) as u
