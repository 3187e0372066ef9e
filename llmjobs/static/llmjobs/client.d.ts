/** The types of client.js: TypeScript and editors find this file by itself, beside the module that it declares. */

export type JobStatus = "scheduled" | "queued" | "running" | TerminalStatus;
export type TerminalStatus = "completed" | "failed" | "dead" | "cancelled" | "expired";
export type PriorityName = "critical" | "high" | "normal" | "low" | "background";
export type Priority = PriorityName | 0 | 1 | 5 | 8 | 10;
export type Endpoint = "/v1/chat/completions" | "/v1/responses" | "/v1/embeddings";
export type BlockedBy =
  | "rate_limit" | "client_rate_limit" | "client_concurrency" | "model_concurrency" | "client_paused" | "model_paused"
  | "provider_paused" | "provider_down" | "provider_quota" | "provider_auth" | "claims_paused" | "no_worker";

/** What `submit` takes: a `model` and exactly one of `messages`, `input` and `body`. `null` is as good as nothing. */
export interface Submission {
  model: string;
  /** A chat, as /v1/chat/completions takes it. */
  messages?: Message[] | null;
  /** As /v1/responses and /v1/embeddings take it. */
  input?: string | unknown[] | null;
  /** The provider's whole request, instead of messages or input. */
  body?: Record<string, unknown> | null;
  endpoint?: Endpoint | null;
  priority?: Priority | null;
  /** Start no sooner than in so many seconds. */
  delay_s?: number | null;
  /** Expire if not started within so many seconds. */
  expires_in_s?: number | null;
  /** Seconds of one attempt. */
  timeout_s?: number | null;
  /** Failures after which it is dead. */
  max_attempts?: number | null;
  /** Seconds; bounds all retries together. */
  retry_for_s?: number | null;
  /** What lost attempts may cost before no more are made. */
  max_cost_usd?: number | null;
  on_interrupt?: "restart" | "keep" | null;
  dedupe?: "none" | "join" | null;
  when_limited?: "wait" | "reject" | null;
  webhook_url?: string | null;
  /** The end user on whose behalf it is made. */
  user?: string | null;
  /** Yours, to find jobs by. */
  metadata?: Record<string, string> | null;
}

/** Whatever the provider takes; `role` is what every message has. */
export interface Message {
  role: string;
  content?: unknown;
  [field: string]: unknown;
}

export interface Job {
  id: string;
  object: "job";
  status: JobStatus;
  client: string;
  tier: string;
  endpoint: Endpoint;
  model: string;
  priority: PriorityName;
  size: "short" | "long";
  metadata: Record<string, string>;
  user: string | null;
  idempotency_key: string | null;
  /** `null` once the request was erased. */
  prompt_hash: string | null;
  estimate: { input_tokens: number; output_tokens: number };
  /** Starts expected before it: 0 starts next. Exact to 1,000, then rounded. */
  position: number | null;
  /** Seconds until it is expected to start. */
  eta_s: number | null;
  blocked_by: BlockedBy | null;
  /** Claims so far. */
  attempt: number;
  /** Attempts that ended in error; bounded by `max_attempts`. */
  failures: number;
  max_attempts: number;
  timeout_s: number;
  cancel_requested: boolean;
  /** Times are ISO 8601, in UTC. */
  created_at: string;
  available_at: string;
  expires_at: string | null;
  started_at: string | null;
  finished_at: string | null;
  /** The provider's own response body, untouched. */
  output: Record<string, any> | null;
  /** The text so far, also while it runs. */
  output_text: string;
  /** As the provider counts it. */
  usage: Record<string, any> | null;
  /** Of all attempts together. */
  cost_usd: number | null;
  error: JobError | null;
  links: { self: string; events: string; websocket: string; cancel: string };
}

export interface JobError {
  code: string;
  message: string | null;
  class: "transient" | "deterministic" | "unknown" | null;
  provider_status: number | null;
  attempt: number | null;
}

export interface JobList {
  object: "list";
  /** Newest first. */
  data: Job[];
  /** The cursor of the next page; `null`: there is none. */
  next: string | null;
  /** Of a search: back to when this page looked; `null`: to the end. */
  searched_to?: string | null;
}

export interface Model {
  id: string;
  object: "model";
  created: number;
  owned_by: string;
  context_window: number | null;
  limits: { rpm: number; tpm: number; max_running: number | null };
  prices: { input_usd_per_mtok: number | null; output_usd_per_mtok: number | null };
  fallback: string | null;
  is_paused: boolean;
}

/** `seq` rises from event to event of a job. */
export type JobEvent =
  | { seq: number; type: "status"; data: { status: JobStatus; attempt: number; [more: string]: unknown } }
  | { seq: number; type: "delta"; data: { text: string } }
  /** A new attempt starts over: drop the text. */
  | { seq: number; type: "reset"; data: Record<string, unknown> }
  /** `superseded`: it was requeued since, and goes on. */
  | { seq: number; type: "done"; data: Job & { superseded?: boolean } };

/** An event of one of the caller's jobs. */
export type FeedEvent = JobEvent & { job: string };

export type LiveState = "connecting" | "live" | "reconnecting";

export interface CallOptions {
  /** Ends the call: it rejects with the signal's reason. */
  signal?: AbortSignal;
}

export interface LiveOptions extends CallOptions {
  onState?: (state: LiveState) => void;
}

export interface SubmitOptions extends CallOptions {
  /** Yours, so that a program that starts again does not submit twice. Without it each call makes one. */
  idempotencyKey?: string;
  /** Called while it waits in this object's line, whenever that has changed. */
  onWait?: (state: WaitState) => void;
}

export interface SubmitManyOptions extends CallOptions {
  /** One for each, in the same order. */
  idempotencyKeys?: string[];
  /** Called while they wait in this object's line, whenever that has changed. */
  onWait?: (state: WaitState) => void;
  /** Called as they are taken in. */
  onProgress?: (progress: { done: number; total: number }) => void;
}

/** Of a submit that waits. `reason` is the code of the error for which nothing is sent before `until`. */
export interface WaitState {
  /** Submits of this object that go first. */
  before: number;
  until: Date | null;
  reason: string | null;
}

/** Of all submits that wait in an object's line. */
export interface LineState {
  count: number;
  until: Date | null;
  reason: string | null;
}

/** What became of one of many submits. */
export type Submitted =
  | { id: string; status: JobStatus; isReplayed: boolean; error: null }
  | { id: null; status: null; isReplayed: false; error: LLMJobsError };

export interface JobFilters {
  status?: JobStatus;
  model?: string;
  priority?: Priority;
  /** ISO 8601 */
  created_after?: string;
  /** One of the session user's clients. */
  client?: string;
  /** Words of the prompt, the output, the metadata, or an id. */
  search?: string;
  /** 1 to 100; 20 by default. */
  limit?: number;
  /** `next` of the page before. */
  cursor?: string | null;
  [metadata: `metadata.${string}`]: string;
}

export interface ErrorDetails {
  status?: number;
  code?: string;
  type?: string | null;
  param?: string | null;
  retryAfter?: number | null;
  shouldRetry?: boolean;
  requestId?: string | null;
  idempotencyKey?: string | null;
  cause?: unknown;
}

export interface LLMJobsOptions {
  /** Such as https://jobs.example.com. In a browser it is the page's own site by default. */
  baseUrl?: string | URL;
  /** Without one, in a page of the same site, the session's cookie speaks for the user. */
  apiKey?: string | null;
  /** For which of the session user's clients, where there are several. */
  client?: string | null;
  fetch?: typeof fetch;
  /** `null`: Server-Sent Events only. */
  WebSocket?: typeof WebSocket | null;
  /** How many submits may wait in this object's line; 1,000 by default. 0: none waits, a 429 rejects at once. */
  queueMax?: number;
  /** How many are sent at a time; 1 by default, which is what keeps their order at the server. */
  concurrency?: number;
  /** Seconds for which submits are sent again to a server that does not answer; 15 by default. */
  patienceS?: number;
  /** Seconds that one call may take to be answered; 30 by default. */
  timeoutS?: number;
  /** Seconds after which a live connection on which nothing came is replaced; 60 by default. */
  silenceS?: number;
}

/** The states that a job does not leave by itself. */
export const TERMINAL: Set<JobStatus>;

/** Whatever went wrong: the server's own words where it answered, `status` 0 where it could not be reached. */
export class LLMJobsError extends Error {
  constructor(message: string, details?: ErrorDetails);
  readonly name: "LLMJobsError";
  /** HTTP's; 0: there was no answer. */
  readonly status: number;
  readonly code: string;
  readonly type: string | null;
  /** The field that is wrong. */
  readonly param: string | null;
  /** Seconds. */
  readonly retryAfter: number | null;
  /** False where coming again does not help, such as for a budget that is spent. */
  readonly shouldRetry: boolean;
  readonly requestId: string | null;
  /** Of a submit: to send it again without a second job. */
  readonly idempotencyKey: string | null;
  /** True where the same call may well succeed in a moment. */
  get isTemporary(): boolean;
}

export class LLMJobs {
  constructor(options?: LLMJobsOptions);
  /** What waits to be sent by this object. */
  get waiting(): LineState;
  /** One job, however often it has to be sent; waits in line while the server has no room. */
  submit(submission: Submission, options?: SubmitOptions): Promise<Job>;
  /** Many at once, up to 1,000 a request; what became of each, in order. */
  submitMany(submissions: Submission[], options?: SubmitManyOptions): Promise<Submitted[]>;
  get(id: string, options?: CallOptions): Promise<Job>;
  /** `get` for those who ask again: `retryAfter` is in how many seconds the server wants that. */
  poll(id: string, options?: CallOptions & { waitS?: number }): Promise<{ job: Job; retryAfter: number | null }>;
  list(filters?: JobFilters, options?: CallOptions): Promise<JobList>;
  models(options?: CallOptions): Promise<{ object: "list"; data: Model[] }>;
  /** Idempotent. A running job ends within about a second. */
  cancel(id: string, options?: CallOptions): Promise<Job>;
  /** The job once it is terminal, however it ended. Rejects with code `wait_timeout` after `timeoutS`; the job goes on. */
  wait(id: string, options?: CallOptions & { timeoutS?: number }): Promise<Job>;
  /** The events of a job, from the first one (or after the event numbered `after`) to its end. */
  stream(id: string, options?: LiveOptions & { after?: number }): AsyncGenerator<JobEvent, void, void>;
  /** The events of all of the caller's jobs, from now on. It has no end: break, or abort the signal. */
  streamAll(options?: LiveOptions): AsyncGenerator<FeedEvent, void, void>;
  /** Any other call of the API; `body` is sent as JSON. `null` where it answers nothing (204). */
  json<T = any>(
    path: string,
    options?: CallOptions & { method?: string; body?: unknown; headers?: Record<string, string> },
  ): Promise<T>;
}
