-- Looks through the body as it comes in, refuses a message with a forbidden text, and stops the transfer as soon as it has seen enough.
--
--   pmx-milter try examples/scan_body.lua message.eml
local policy = {}

-- Without this line body chunks are sent without waiting for our answer: fast, but a verdict is then given at end of message, when all
-- of the body has been sent. With it each chunk is answered: milter.SKIP really saves the transfer of the rest, and a refusal comes at once.
policy.answer_body = true

local FORBIDDEN = "X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
local ENOUGH = 1024 * 1024

-- A chunk is up to 65535 bytes and may end anywhere, in the middle of a line or of what we look for: so the end of the last chunk is
-- looked at again with the next one. ctx.message is a table of our own that lives as long as the message (ctx.session: as the connection).
function policy.body(ctx, chunk)
  local kept = ctx.message
  local text = (kept.tail or "") .. chunk

  -- The fourth argument, true, means plain text: no pattern.
  if text:find(FORBIDDEN, 1, true) then
    log.warn("forbidden text in the body")
    return ctx:reply("554", "5.7.1", "the message contains a forbidden text")
  end

  kept.tail = text:sub(-(#FORBIDDEN - 1))
  kept.bytes = (kept.bytes or 0) + #chunk
  if kept.bytes >= ENOUGH then
    -- The rest is not looked at; eom is still called.
    return milter.SKIP
  end
end

function policy.eom(ctx)
  ctx:add_header("X-Body-Scanned", (ctx.message.bytes or 0) .. " bytes")
end

return policy
