/** Submits many jobs at once and tells what becomes of each: the same in Node and, as text, in a page. */

export async function submitAll({ LLMJobs, tell, options, submissions, follows = false }) {
  const llmjobs = new LLMJobs(options);
  const told = (name) => ({ onWait: ({ before, until, reason }) => tell({ name, before, isClosed: until !== null, reason }) });
  await Promise.all(submissions.map(async (submission, index) => {
    const { name } = submission.metadata;
    const shouldFollow = follows && index === 0;
    try {
      const job = await llmjobs.submit(submission, told(name));
      tell({ landed: name, id: job.id });
      if (shouldFollow) await follow(llmjobs, job.id);
    } catch ({ code, message }) {
      tell({ refused: name, code: code ?? message });
    }
  }));
  tell({ isOver: true, waiting: llmjobs.waiting });

  async function follow(client, id) {
    let text = "";
    const numbers = [];
    for await (const { seq, type, data } of client.stream(id, { onState: (state) => tell({ state }) })) {
      numbers.push(seq);
      if (type === "reset") text = "";
      if (type === "delta") text += data.text;
    }
    const { status, output_text: whole } = await client.wait(id, { timeoutS: 30 });
    tell({ followed: status, isWhole: text === whole, isInOrder: numbers.every((seq, n) => n === 0 || seq > numbers[n - 1]) });
  }
}
